"""What a batch takes in memory, and how many rows would fit, before anything is trained.

A whole training step of the real model, forward and backward, is run on fake tensors: they have
shapes and no content, so it takes a second or two for a model of a billion parameters. All that is
alive after each operation is added up: activations, copies that autocast makes of weights, logits,
gradients. That is done for two sizes of a batch, between and beyond which what is alive after one
and the same operation grows in proportion.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence

import torch

from siqvl.device import Precision, device_memory
from siqvl.model.configuration import SiQVLConfig
from siqvl.model.modeling import SiQVLForConditionalGeneration
from siqvl.recipe import Recipe, SFTStage
from siqvl.training.memory.batch_shape import BatchShape
from siqvl.training.memory.fake_step import FakeStep
from siqvl.training.memory.memory_estimate import MemoryEstimate

logger = logging.getLogger(__name__)

SMALL = 20_000_000  # parameters
ADAM_STATES = 2  # running means of gradients and of their squares, each as large as the weights


def tell_memory(
    model: SiQVLForConditionalGeneration,
    shape: BatchShape,
    stage: SFTStage,
    recipe: Recipe,
    precision: Precision,
) -> None:
    """Log what training will take, and warn when the device is too small.

    Nothing is said of a model so small that looking takes longer than it is worth.
    """
    if model.num_parameters() < SMALL:
        return
    spread = recipe.distributed
    estimate = estimate_memory(
        model.config,
        stage,
        shape,
        precision,
        processes=spread.processes if spread.enabled else 1,
        sharded=spread.enabled and spread.strategy == "fsdp",
    )
    logger.info("%s", estimate.line())
    if warning := estimate.warning():
        logger.warning("%s", warning)


def estimate_memory(
    config: SiQVLConfig,
    stage: SFTStage,
    shape: BatchShape,
    precision: Precision,
    *,
    processes: int = 1,
    sharded: bool = False,
) -> MemoryEstimate:
    """What one training process of a stage takes on its device.

    Exact for the tensors that PyTorch makes; what its allocator and kernels need beyond is not
    known. `compile` is not looked at: it takes less.

    Args:
        config: of the model, its attention resolved.
        shape: the largest batch of a process.
        processes: training processes.
        sharded: FSDP: each holds a part of weights, gradients and optimizer states.
    """
    gpu = torch.cuda.is_available()
    step = FakeStep(config, stage, precision, alone=processes == 1, sharded=sharded, on_gpu=gpu)
    model = step.model
    rows = max(2, shape.rows)
    # the third chunk of logits and those after it take no more than two do
    learned = min(shape.learned, 3 * stage.head_chunk)
    small = step.timeline(shape.of_rows(rows), learned)
    large = step.timeline(shape.of_rows(2 * rows), learned)
    # with more rows come more learned tokens, until a chunk of logits is full
    full = small
    if learned < stage.head_chunk:
        full = step.timeline(shape.of_rows(rows), stage.head_chunk)
    weights = _bytes([*model.parameters(), *model.buffers()])
    learning = _bytes([one for one in model.parameters() if one.requires_grad])
    parts = processes if sharded else 1
    return MemoryEstimate(
        shape=shape,
        packed=stage.batching == "packed",
        checkpointed=stage.gradient_checkpointing,
        weights=weights // parts,
        gradients=learning // parts,
        optimizer=ADAM_STATES * learning // parts,
        mean=learning // parts if stage.ema is not None else 0,
        # DistributedDataParallel copies gradients into buckets, which it sends
        buckets=learning if processes > 1 and not sharded else 0,
        lines=_lines(small, large, rows, learning),
        full_lines=_lines(full, _sum(full, large, small), rows, learning),
        capacity=device_memory(),
        device="GPU" if torch.cuda.is_available() else "RAM",
    )


def _lines(
    small: Sequence[int], large: Sequence[int], rows: int, gradients: int
) -> list[tuple[float, float]]:
    """Bytes beside the gradients after each operation, as (for no row, for each row more)."""
    if len(small) != len(large):  # an operation more or less: the largest values must do
        small, large = [max(small)], [max(large)]
    pairs = set(zip(small, large, strict=True))
    return [(2 * one - other - gradients, (other - one) / rows) for one, other in pairs]


def _sum(full: Sequence[int], large: Sequence[int], small: Sequence[int]) -> list[int]:
    """`full`, with as much more as there is in `large` than in `small`."""
    if not len(full) == len(large) == len(small):
        return [max(full) + max(large) - max(small)]
    return [one + more - less for one, more, less in zip(full, large, small, strict=True)]


def _bytes(tensors: Sequence[torch.Tensor]) -> int:
    """Of each tensor once: the head may be the embedding."""
    return sum(one.nbytes for one in dict.fromkeys(tensors))
