"""What a stage leaves on disk, from the sizes of its model."""

from __future__ import annotations

import math
from dataclasses import dataclass

from siqvl.estimate.planned_work import PlannedWork
from siqvl.estimate.results import Amount, DiskFigures
from siqvl.recipe import SFTStage

FLOAT32 = 4  # bytes of a weight in checkpoints and states
FEATURE = 2  # of a number of cached features: bfloat16
MOMENTS = 2  # AdamW's


@dataclass(frozen=True)
class Weights:
    """Numbers of weights.

    Attributes:
        all: of the model, without adapters.
        learning: that a stage trains, adapters among them.
    """

    all: int
    learning: int


def state_bytes(stage: SFTStage, weights: Weights, *, sharded: bool = False) -> int:
    """Of one resumable state: weights, moments of those that learn, and a running mean of them.

    A stage with adapters keeps what learns alone, as the rest is in the checkpoint it started from;
    FSDP's states are whole.
    """
    kept = weights.learning if stage.adapter is not None and not sharded else weights.all
    means = weights.learning if stage.ema is not None else 0
    return FLOAT32 * (kept + MOMENTS * weights.learning + means)


def disk_figures(
    stage: SFTStage,
    work: PlannedWork,
    weights: Weights,
    *,
    picture_numbers: int,
    sharded: bool = False,
) -> DiskFigures:
    """What a stage leaves, at the moment when there is most.

    Args:
        picture_numbers: that the tower makes of one picture.
    """
    states, steps = stage.kept_states + 1, work.steps
    if steps.value is not None:
        states = min(states, math.ceil(steps.value / stage.saving_steps))
    features = Amount(value=0, sure="known")
    if stage.cached_features:
        pictures = work.pictures
        features = Amount()
        if pictures.value is not None:
            size = pictures.value * picture_numbers * FEATURE
            features = Amount(value=size, sure=pictures.sure)
    adapters = FLOAT32 * weights.learning if stage.adapter is not None else 0
    return DiskFigures(
        rows=work.rows_bytes,
        features=features,
        states=Amount(
            value=states * state_bytes(stage, weights, sharded=sharded),
            sure="known" if steps.sure == "known" else "at most",
        ),
        checkpoint=Amount(value=FLOAT32 * weights.all + adapters, sure="known"),
    )
