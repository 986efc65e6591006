"""Trainer callback: training figures go to the stage's MLflow run as they appear."""

from __future__ import annotations

from typing import Any

from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from siqvl.tracking.runs import RunLog


class MetricLogger(TrainerCallback):
    """Logs every number the trainer reports, on the optimizer-step axis, from rank 0 only."""

    def __init__(self, log: RunLog) -> None:
        self.log = log

    def on_log(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        logs: dict[str, Any] | None = None,
        **kwargs: Any,
    ) -> None:
        if state.is_world_process_zero and logs:
            numbers = {
                f"train/{key}": value
                for key, value in logs.items()
                if isinstance(value, int | float) and key != "total_flos"
            }
            if numbers:
                self.log.metrics(numbers, step=state.global_step)
