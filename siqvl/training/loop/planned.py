"""Trainers that follow a plan: which rows a step sees is known from its number."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from transformers.trainer_callback import PrinterCallback, ProgressCallback

from siqvl.data.batching import BatchPlan, Key
from siqvl.data.loader import TrainingLoader
from siqvl.data.mixture import Mixture
from siqvl.errors import UserError
from siqvl.recipe import DPOStage
from siqvl.training.figures.telemetry import Telemetry, TelemetryStart
from siqvl.training.loop.ema import WeightMean
from siqvl.training.loop.embedding import add_embedding_gradient_in_place
from siqvl.training.loop.optimizer import learning_rates, parameter_groups

if TYPE_CHECKING:
    import torch
    from torch.utils.data import DataLoader

    from siqvl.data.encoded import EncodedDataset
    from siqvl.recipe import Recipe, SFTStage, Source


def training_loader(
    dataset: EncodedDataset,
    collate: Callable[[Sequence[Any]], dict[str, Any]],
    *,
    stage: SFTStage,
    recipe: Recipe,
    rows_of_sources: Sequence[int],
) -> TrainingLoader:
    """The batches of a stage for this process, one of those that torch elastic started.

    Args:
        rows_of_sources: the manifest's: prepared rows of each source of the stage.

    Raises:
        UserError: the rows were prepared from more or fewer sources than the stage has.
    """
    import torch

    sources = sources_of(stage)
    if len(rows_of_sources) != len(sources):
        raise UserError(_other_sources(stage, len(sources), len(rows_of_sources)))
    mixture = Mixture.of(
        dataset, sources, rows_of_sources, temperature=stage.temperature, seed=recipe.seed
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


def sources_of(stage: SFTStage) -> list[Source]:
    """What the rows of a stage come from, in their order; sampled pairs are the last of DPO's."""
    if not isinstance(stage, DPOStage) or stage.sampled is None:
        return stage.sources
    source, weight = stage.sampled.source, stage.sampled.weight
    named = {"kind": f"sampled {source.kind}", "weight": weight}
    return [*stage.sources, source.model_copy(update=named)]


def _other_sources(stage: SFTStage, wanted: int, found: int) -> str:
    said = f"the data has rows of {found} sources, but the recipe's stage names {wanted} of them"
    if isinstance(stage, DPOStage) and stage.sampled is not None:
        return f"{said}, sampled pairs included; add these with the task preference_pairs"
    return f"{said}; prepare the data with this recipe"


class PlannedBatches:
    """Mixin for Hugging Face's trainers: batches come from `loader`, and from nowhere else.

    To the trainer the whole run is one epoch, whose length it knows. Packs make every epoch of the
    data a little shorter or longer, and a resumed Trainer, which divides steps by the length of an
    epoch, would start in the wrong place.
    """

    loader: TrainingLoader
    stage: SFTStage
    optimizer: Any  # the trainer's own, which it has made when training starts
    telemetry: Telemetry
    mean: WeightMean | None = None
    _place = (-1, 0)  # optimizer step and micro-batch that are being computed
    _in_step = False

    def follow(self, loader: TrainingLoader, stage: SFTStage, recipe: Recipe) -> Self:
        """Train on the batches of `loader`, as `stage` says; to be called once, before `train`."""
        self.loader, self.stage = loader, stage
        self.telemetry = Telemetry.of(loader, self.model.config, stage, recipe)  # type: ignore[attr-defined]
        self.add_callback(TelemetryStart(self.telemetry))  # type: ignore[attr-defined]
        for printing in (
            ProgressCallback,
            PrinterCallback,
        ):  # ours does
            self.remove_callback(printing)  # type: ignore[attr-defined]
        if loader.plan.world == 1:  # DDP takes such an embedding's gradient for sparse as a whole
            add_embedding_gradient_in_place(self.model)  # type: ignore[attr-defined]
        if stage.ema is not None:
            self.mean = WeightMean(self.model, stage.ema)  # type: ignore[attr-defined]
            self.add_callback(self.mean)  # type: ignore[attr-defined]
        return self

    def get_train_dataloader(self) -> DataLoader:
        """This process's share of every batch; accelerate must not divide it again."""
        return self.loader.dataloader()

    def keys(self) -> list[Key]:
        """The rows of the batch that is being trained on; of a packed batch, those of each pack."""
        return self.loader.plan.batch(*self._place, self.loader.rank)

    def create_optimizer(self, model: Any = None) -> torch.optim.Optimizer:
        """Hugging Face's choice of optimizer, over groups with each part's learning rate."""
        if self.optimizer is None:
            kind, options = self.get_optimizer_cls_and_kwargs(self.args, self.model)  # type: ignore[attr-defined]
            groups = parameter_groups(model or self.model, self.stage)  # type: ignore[attr-defined]
            self.optimizer = kind(groups, **options)
        return self.optimizer

    def training_step(self, *args: Any, **kwargs: Any) -> torch.Tensor:
        step = self.state.global_step  # type: ignore[attr-defined]
        self._place = (step, self._place[1] + 1 if step == self._place[0] else 0)
        self._in_step = True
        try:
            return super().training_step(*args, **kwargs)  # type: ignore[misc]
        finally:
            self._in_step = False

    def get_batch_samples(
        self, epoch_iterator: Iterator[Any], num_batches: int, device: torch.device
    ) -> tuple[list[Any], torch.Tensor | int | None]:
        """Hugging Face's own; the time that batches are waited for is taken."""
        timed = self.telemetry.timed(epoch_iterator)
        return super().get_batch_samples(timed, num_batches, device)  # type: ignore[misc]

    def count_losses(self, nll: torch.Tensor) -> None:
        """For the losses of the sources, see `Telemetry.token_losses`; in a training step alone."""
        if self._in_step:
            self.telemetry.token_losses(self.keys(), nll)

    def whole_weights(self) -> dict[str, torch.Tensor] | None:
        """All weights, gathered on the first process, where FSDP has shared them out; else None.

        Every process has to ask.
        """
        if not self.is_fsdp_enabled:  # type: ignore[attr-defined]
            return None
        return self.accelerator.get_state_dict(self.model)  # type: ignore[attr-defined]

    def write_extra_state(self, folder: Path) -> None:
        """What a run continues from, beside what Hugging Face's trainer keeps."""
        if self.mean is not None and self.args.should_save:  # type: ignore[attr-defined]
            self.mean.write(folder)  # the same in every process
        content = json.dumps(self.telemetry.state())
        self._kept_telemetry(folder).write_text(content, encoding="utf-8")

    def read_extra_state(self, folder: Path) -> None:
        """Continue from what `write_extra_state` left there."""
        if self.mean is not None:
            self.mean.read(folder)
        content = self._kept_telemetry(folder).read_text(encoding="utf-8")
        self.telemetry.load_state(json.loads(content))

    def _kept_telemetry(self, folder: Path) -> Path:
        return folder / f"telemetry-{self.loader.rank}.json"

    def extra_state_bytes(self) -> int:
        """What `write_extra_state` adds to a state: the mean of the weights that learn, in fp32."""
        model = self.model  # type: ignore[attr-defined]
        learn = sum(weight.numel() for weight in model.parameters() if weight.requires_grad)
        return 4 * learn if self.mean is not None else 0

    def log(self, logs: dict[str, float], *args: Any, **kwargs: Any) -> None:
        """`epoch` is that of the data, not the share of the run that is done."""
        state = self.state  # type: ignore[attr-defined]  # of the trainer this is mixed into
        state.epoch = float(self.loader.plan.epoch_of(max(state.global_step - 1, 0)))
        if self.stage.learning_rates and "learning_rate" in logs:
            logs |= learning_rates(self.optimizer)
        if "loss" in logs:
            logs |= self.telemetry.figures(state.global_step)
        super().log(logs, *args, **kwargs)  # type: ignore[misc]
