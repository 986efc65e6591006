"""What an estimate says: figures for machines, with how sure each of them is."""

from __future__ import annotations

from typing import Literal

from siqvl.recipe import Part, Stage
from siqvl.stored import Stored

#: known: it follows from the recipe or from prepared rows; at most: it can only be less.
Sure = Literal["known", "at most", "unknown"]


class Amount(Stored):
    """A number, and how sure it is; None where nothing is known of it."""

    value: float | None = None
    sure: Sure = "unknown"


class Turn(Stored):
    """A knob that is turned, and what memory is needed then."""

    setting: str  # as `--set` takes it, or keys of several
    bytes: int
    fits: bool


class MemoryFigures(Stored):
    """Bytes of one training process on its device, at the peak of the stage."""

    weights: dict[Part, int]
    gradients: int
    optimizer: int
    ema: int
    buckets: int
    gathered: int
    batch: int  # batches, activations, copies of weights, logits
    logits: int  # counted in `batch`: the chunk that is in memory at once
    step: int  # all of these
    passes: dict[str, int]  # peaks before training: `features`, `reference`
    total: int  # the largest of the step's and the passes'
    rows: int  # of the batch that takes most
    width: int
    images: int
    learned: int


class DiskFigures(Stored):
    """Bytes on disk."""

    rows: Amount  # prepared
    features: Amount  # cached, of the stage's pictures
    states: Amount  # resumable, as many as there are while one more is written
    checkpoint: Amount


class StageFigures(Stored):
    """What one stage takes."""

    stage: Stage
    learns: list[str]
    precision: str
    memory: MemoryFigures
    memory_sure: Sure
    fits: bool | None  # None: the device's memory is not known
    turns: list[Turn]
    disk: DiskFigures
    steps: Amount
    rows_per_step: int  # or packs
    rows: Amount  # of an epoch
    tokens: Amount
    images: Amount
    operations: Amount  # that the model needs
    repeated: Amount  # beside them, by gradient checkpointing
    once: Amount  # of passes before training
    hours: Amount


class EvaluationFigures(Stored):
    """What all stages' benchmarks ask for."""

    answers: Amount
    tokens: Amount  # written, if each answer were as long as it may be


class Estimate(Stored):
    """What a recipe takes."""

    recipe: str
    model: list[str]  # its parts, and where their configs are from
    parameters: dict[Part, int]
    device: str
    capacity: int | None  # bytes of one device
    processes: int
    peak_flops: float | None  # of one device, a second
    mfu: float
    mfu_source: str
    stages: list[StageFigures]
    evaluation: EvaluationFigures
    disk: int  # bytes of all that is known or at most
    registry: int  # of them copies in the model registry
    notes: list[str]
