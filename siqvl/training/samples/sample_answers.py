"""Has the model in training answer a few rows now and then, and logs what it says."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from typing import Any

from datasets import Dataset
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from siqvl.data.encoded import EncodedDataset
from siqvl.device import Precision
from siqvl.model.processing import SiQVLProcessor
from siqvl.recipe import Recipe
from siqvl.tracking.runs import RunLog
from siqvl.tracking.sample_table import Answered, SampleTable
from siqvl.training.loop.planned import PlannedTrainer
from siqvl.training.samples.sample_rows import Samples

logger = logging.getLogger(__name__)


class SampleAnswers(TrainerCallback):
    """Asks at every `every` steps, before the first among them; `take` asks at any time.

    Attributes:
        told: whoever else wants to know the step, and what was answered after it.
    """

    def __init__(
        self, trainer: PlannedTrainer, samples: Samples, log: RunLog, every: int | None
    ) -> None:
        self._trainer = trainer
        self._samples = samples
        self._table = SampleTable(log)
        self._every = every
        self.told: list[Callable[[int, list[Answered]], None]] = []

    @classmethod
    def of(
        cls,
        trainer: PlannedTrainer,
        recipe: Recipe,
        dataset: Dataset,
        encoded: EncodedDataset,
        processor: SiQVLProcessor,
        precision: Precision,
        log: RunLog | None,
    ) -> SampleAnswers | None:
        """Adds itself to a trainer, or gives None if nobody looks or this process is not the first.

        The first of several processes asks the model itself, not DDP's wrapper of it, so that the
        others have nothing to answer; they wait at the next step.

        Args:
            dataset: the prepared rows.
            encoded: those of them that are trained on.
        """
        tracking, distributed = recipe.tracking, recipe.distributed
        if log is None or tracking.samples == 0 or not trainer.is_world_process_zero():
            return None
        if distributed.several and distributed.strategy == "fsdp":
            logger.warning("no samples are answered: with fsdp no process has the whole model")
            return None
        suffix = getattr(trainer.stage, "prompt_suffix", "")
        plan = trainer.loader.plan
        samples = Samples(recipe, dataset, encoded, plan, processor, precision, suffix)
        added = cls(trainer, samples, log, tracking.samples_every)
        trainer.add_callback(added)
        return added

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        if self._every is not None and state.global_step == 0:
            self.take(0)

    def on_step_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        step = state.global_step
        if self._every is not None and step % self._every == 0 and step < state.max_steps:
            self.take(step)

    def take(self, step: int) -> None:
        """Has the model answer now, after `step` steps, and logs it."""
        start = time.perf_counter()
        model = self._trainer.accelerator.unwrap_model(self._trainer.model)
        answered = self._samples.answered(model, step)
        self._table.add(step, answered)
        for tell in self.told:
            tell(step, answered)
        seconds = time.perf_counter() - start
        self._trainer.telemetry.leave_out(seconds)
        logger.info("%d samples answered and logged in %.2f s", len(self._samples), seconds)
