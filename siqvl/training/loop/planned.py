"""Trainers that follow a plan: which rows a step sees is known from its number."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, Self

import torch
from torch.utils.data import DataLoader
from transformers import TrainerCallback, TrainingArguments
from transformers.trainer_callback import PrinterCallback, ProgressCallback

from siqvl.adapters.attach import adapter_weights
from siqvl.data.batching import BatchPlan, Key
from siqvl.data.collate import Features
from siqvl.data.encoded import EncodedDataset
from siqvl.data.loader import TrainingLoader
from siqvl.data.manifest import Manifest
from siqvl.data.mixture import Mixture
from siqvl.model.modeling import SiQVLForConditionalGeneration
from siqvl.model.processing import SiQVLProcessor
from siqvl.recipe import Recipe, SFTStage
from siqvl.training.figures.telemetry import Telemetry
from siqvl.training.loop.arguments import trainer_arguments
from siqvl.training.loop.ema import WeightMean
from siqvl.training.loop.embedding import add_embedding_gradient_in_place
from siqvl.training.loop.optimizer import learning_rates, parameter_groups
from siqvl.training.loop.stoppable_steps import StoppableSteps
from siqvl.training.prepared_sources import sources_of


def training_loader(
    dataset: EncodedDataset,
    collate: Callable[[Sequence[Any]], dict[str, Any]],
    *,
    stage: SFTStage,
    recipe: Recipe,
    manifest: Manifest,
) -> TrainingLoader:
    """The batches of a stage for this process, one of those that torch elastic started.

    Args:
        manifest: of the prepared rows.

    Raises:
        UserError: the rows were prepared from other sources than the stage has.
    """
    mixture = Mixture.of(
        dataset,
        sources_of(stage, manifest),
        manifest.rows_of_sources,
        temperature=stage.temperature,
        seed=recipe.seed,
    )
    return TrainingLoader(
        dataset,
        collate,
        BatchPlan.of(stage, dataset, mixture, world=int(os.environ.get("WORLD_SIZE", "1"))),
        rank=int(os.environ.get("RANK", "0")),
        workers=stage.loader_workers,
        prefetch=stage.prefetch,
        pin_memory=torch.cuda.is_available(),
    )


class PlannedTrainer(StoppableSteps):
    """A trainer whose batches come from `loader`, and from nowhere else.

    To the trainer the whole run is one epoch, whose length it knows. Packs make every epoch of the
    data a little shorter or longer, and a resumed Trainer, which divides steps by the length of an
    epoch, would start in the wrong place.
    """

    loader: TrainingLoader
    stage: SFTStage
    model: Any  # the trainer's own, which is never None here
    telemetry: Telemetry
    mean: WeightMean | None = None
    _place = (-1, 0)  # optimizer step and micro-batch that are being computed
    _in_step = False

    @classmethod
    def over(
        cls,
        model: SiQVLForConditionalGeneration,
        processor: SiQVLProcessor,
        dataset: EncodedDataset,
        *,
        stage: SFTStage,
        recipe: Recipe,
        manifest: Manifest,
        work_dir: Path,
        callbacks: list[TrainerCallback],
        features: Features | None = None,
    ) -> Self:
        """A trainer of `model` over encoded rows, as `stage` says.

        Args:
            manifest: as `training_loader`.
            work_dir: where its resumable states go.
            features: the frozen tower's features by picture, in place of pictures.

        Raises:
            UserError: as `make_loader`, or this machine has not what the recipe names.
        """
        rows = dataset if features is None else dataset.with_hashes()
        collate = cls.make_collator(model, processor, stage, features)
        loader = cls.make_loader(
            rows, collate, model, stage=stage, recipe=recipe, manifest=manifest
        )
        trainer = cls(
            model=model,
            args=TrainingArguments(
                **trainer_arguments(stage, recipe, model.config, work_dir, loader.plan.steps)
            ),
            train_dataset=loader.dataset,
            data_collator=collate,
            callbacks=callbacks,
        )
        telemetry = Telemetry.of(
            *(loader, model.config, stage, recipe), adapter_weights=adapter_weights(model)
        )
        trainer.follow(model, loader, stage, telemetry)
        trainer.learned_alone = stage.adapter is not None
        if loader.plan.world == 1:  # DDP takes such an embedding's gradient for sparse as a whole
            add_embedding_gradient_in_place(model)
        return trainer

    def follow(
        self,
        model: SiQVLForConditionalGeneration,
        loader: TrainingLoader,
        stage: SFTStage,
        telemetry: Telemetry,
    ) -> None:
        """Take batches from `loader`, tell of them by `telemetry` and no other way, and keep the
        mean of the weights if the stage asks for one."""
        self.loader, self.stage, self.telemetry = loader, stage, telemetry
        self.add_callback(telemetry)
        for printing in (ProgressCallback, PrinterCallback):  # ours does
            self.remove_callback(printing)
        if stage.ema is not None:
            self.mean = WeightMean(model, stage.ema)
            self.add_callback(self.mean)

    @classmethod
    def make_collator(cls, model: Any, processor: Any, stage: Any, features: Any) -> Any:
        """What makes batches of rows, for the attention kernel of `model`."""
        raise NotImplementedError

    @classmethod
    def make_loader(
        cls, rows: EncodedDataset, collate: Any, model: SiQVLForConditionalGeneration, **plan: Any
    ) -> TrainingLoader:
        """The batches of `rows`; `plan` is the rest of what `training_loader` takes."""
        return training_loader(rows, collate, **plan)

    def get_train_dataloader(self) -> DataLoader:
        """This process's share of every batch; accelerate must not divide it again."""
        return self.loader.dataloader()

    def keys(self) -> list[Key]:
        """The rows of the batch that is being trained on; of a packed batch, those of each pack."""
        return self.loader.plan.batch(*self._place, self.loader.rank)

    def create_optimizer(self, model: Any = None) -> torch.optim.Optimizer:
        """Hugging Face's choice of optimizer, over groups with each part's learning rate."""
        if self.optimizer is None:
            kind, options = self.get_optimizer_cls_and_kwargs(self.args, self.model)
            groups = parameter_groups(model or self.model, self.stage)
            self.optimizer = kind(groups, **options)
        return self.optimizer

    def training_step(self, *args: Any, **kwargs: Any) -> torch.Tensor:
        step = self.state.global_step
        self._place = (step, self._place[1] + 1 if step == self._place[0] else 0)
        self._in_step = True
        try:
            return super().training_step(*args, **kwargs)
        finally:
            self._in_step = False

    def get_batch_samples(
        self, epoch_iterator: Iterator[Any], num_batches: int, device: torch.device
    ) -> tuple[list[Any], torch.Tensor | int | None]:
        """Hugging Face's own, with the waiting for batches timed."""
        timed = self.telemetry.timed(epoch_iterator)
        return super().get_batch_samples(timed, num_batches, device)

    def count_losses(self, nll: torch.Tensor) -> None:
        """For the losses of the sources, see `SourceLosses.add`; in a training step alone."""
        if self._in_step:
            self.telemetry.losses.add(self.keys(), nll)

    def write_extra_state(self, folder: Path) -> None:
        """Write what a run continues from, beside what Hugging Face's trainer keeps."""
        if self.mean is not None and self.args.should_save:
            self.mean.write(folder)  # the same in every process
        self.keep(folder, "telemetry", self.telemetry.losses.state())

    def read_extra_state(self, folder: Path) -> None:
        """Continue from what `write_extra_state` left there."""
        if self.mean is not None:
            self.mean.read(folder)
        self.telemetry.losses.load_state(self.kept(folder, "telemetry"))

    def extra_state_bytes(self) -> int:
        """Tell how many bytes that adds: the mean of the weights that learn, in fp32."""
        if self.mean is None:
            return 0
        return 4 * sum(one.numel() for one in self.model.parameters() if one.requires_grad)

    def log(self, logs: dict[str, float], *args: Any, **kwargs: Any) -> None:
        """`epoch` is that of the data, not the share of the run that is done."""
        state = self.state  # of the trainer this is mixed into
        state.epoch = float(self.loader.plan.epoch_of(max(state.global_step - 1, 0)))
        if self.stage.learning_rates and "learning_rate" in logs:
            logs |= learning_rates(self.optimizer)
        if "loss" in logs:
            logs |= self.telemetry.figures(state.global_step)
        super().log(logs, *args, **kwargs)
