"""Floating-point operations of a stage, and the hours that a GPU needs for them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from siqvl.recipe import DPOStage, SFTStage

if TYPE_CHECKING:
    from siqvl.model.configuration import SiQVLConfig
    from siqvl.training.figures.work import Work

#: Shares of a GPU's peak that LMMs-Engine reports for training vision-language models, the lower
#: ends: 35 to 40 % with packed sequences, 20 to 25 % without.
PACKED, UNPACKED = 0.35, 0.20
MFU_SOURCE = "LMMs-Engine, docs/reference/mfu.md"


@dataclass(frozen=True)
class Operations:
    """Of a whole stage.

    Attributes:
        needed: by the model, forward and backward, as `siqvl.training.figures.flops` counts.
        repeated: that gradient checkpointing computes a second time.
        once: of passes before training.
    """

    needed: float
    repeated: float
    once: float

    @property
    def total(self) -> float:
        return self.needed + self.repeated + self.once


def stage_operations(
    config: SiQVLConfig,
    stage: SFTStage,
    work: Work[int],
    *,
    adapters: int,
    pictures: float | None,
    epochs: float,
) -> Operations:
    """Count them.

    Args:
        adapters: weights in adapters.
        pictures: distinct ones, whose features are cached.
        epochs: passes over the rows, each of which the reference sees once.
    """
    from siqvl.training.figures.flops import ForwardFlops, TrainingFlops

    training = TrainingFlops(config, stage.in_full, cached_features=stage.cached_features)
    forward = ForwardFlops(config)
    # two operations a weight and token forward, and twice that backward
    needed = training.of(work) + 6 * adapters * work.tokens
    layers = forward.layers * work.tokens + forward.scores * work.pairs
    once = 0.0
    tower = forward.patches + forward.tower + forward.tower_scores
    if stage.cached_features:
        once += tower * (pictures if pictures is not None else work.images)
    if isinstance(stage, DPOStage) and stage.compares:
        seen = layers + forward.head * work.learned + forward.projector * work.images
        seen += 0 if stage.cached_features else tower * work.images
        once += seen / max(epochs, 1.0)
    return Operations(needed, layers if stage.gradient_checkpointing else 0.0, once)


def hours(operations: Operations, peak: float, mfu: float, processes: int) -> float:
    """At a share of the peak of each of some GPUs; what is computed twice takes its time too."""
    return operations.total / (peak * mfu * processes) / 3600
