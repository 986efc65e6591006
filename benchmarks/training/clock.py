"""Times and memory of a training run, noted by a callback that every Hugging Face trainer takes."""

from __future__ import annotations

import resource
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from transformers import TrainerCallback
from transformers import trainer as trainer_module

from siqvl.training.figures.telemetry import peak_resident

MIB = 2**20


class Clock(TrainerCallback):
    """Put under the trainer by `start`, without either side's code knowing of it.

    Attributes:
        ends: when each optimizer step ended.
        rows: of each optimizer step: a plan's own, for others a batch times accumulation.
        losses: of each call of `training_step`, if they are asked for.
        order: rows in the order in which a plan gives them, as far as steps were done.
    """

    def __init__(self, warm_up: int, *, losses: bool = False, profile: bool = False) -> None:
        self.warm_up = warm_up
        self.ends: list[float] = []
        self.rows: list[int] = []
        self.losses: list[float] = []
        self.order: list[int] = []
        self.table: str | None = None
        self.config: Any = None  # of the model
        self._keep_losses = losses
        self._profile = profile
        self._profiler: Any = None
        self._once = 0.0
        self._resident = self._peak = 0.0

    def start(self) -> None:
        """Every trainer that is made from here on has this callback."""
        trainer_module.DEFAULT_CALLBACKS.append(self)
        if self._keep_losses:
            original = trainer_module.Trainer.training_step

            def training_step(trainer: Any, *args: Any, **kwargs: Any) -> torch.Tensor:
                loss = original(trainer, *args, **kwargs)
                self.losses.append(loss.item())
                return loss

            trainer_module.Trainer.training_step = training_step

    def before_model(self) -> None:
        """The model is about to be built: what is in memory now is libraries and rows."""
        if not self._resident:
            self._resident = resident_mib()

    def once(self, work: Callable[..., Any]) -> Callable[..., Any]:
        """`work`, timed: it is done for all rows before the first step."""

        def timed(*args: Any, **kwargs: Any) -> Any:
            start = time.perf_counter()
            result = work(*args, **kwargs)
            self._once += time.perf_counter() - start
            return result

        return timed

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self.config = kwargs["model"].config

    def on_step_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if self._profile and state.global_step == self.warm_up:
            self._profiler = torch.profiler.profile()
            self._profiler.start()

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if torch.cuda.is_available() and state.global_step in (self.warm_up, state.max_steps):
            torch.cuda.synchronize()
        self.ends.append(time.perf_counter())
        if self._profiler is not None:
            self._profiler.stop()
            self.table = operators(self._profiler)
            self._profiler = None
        self._peak = peak_resident() / MIB
        plan = getattr(kwargs["train_dataloader"].batch_sampler, "plan", None)
        if plan is None:
            self.rows.append(args.train_batch_size * args.gradient_accumulation_steps)
        else:
            step = len(self.rows)
            items = [int(item) for part in plan.items(step, step + 1) for item in part]
            self.rows.append(len(items))
            self.order += items

    def figures(self) -> dict[str, Any]:
        """Rates over the steps after warm-up; memory of the run up to its last step, in MiB."""
        seconds = self.ends[-1] - self.ends[self.warm_up - 1]
        gpu = torch.cuda.is_available()
        return {
            "samples_per_second": sum(self.rows[self.warm_up :]) / seconds,
            "rows_per_step": sum(self.rows) / len(self.rows),
            "one_off_seconds": self._once,
            "peak_mib": self._peak,
            "training_mib": self._peak - self._resident,
            "gpu_mib": torch.cuda.max_memory_allocated() / MIB if gpu else None,
            "losses": self.losses,
            "order": self.order,
            "operators": self.table,
        }


def resident_mib() -> float:
    """Resident memory of this process (Linux)."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * resource.getpagesize() / MIB


def operators(profiler: Any) -> str:
    """The operators that took most time of the device that computes."""
    by = "self_cuda_time_total" if torch.cuda.is_available() else "self_cpu_time_total"
    return profiler.key_averages().table(sort_by=by, row_limit=15, max_name_column_width=44)
