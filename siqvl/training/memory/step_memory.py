"""What a training step takes on its device, part by part, from a config alone.

A language model of many equal layers is looked at with three and with four of them. What is alive
at any operation of a step grows in proportion to their number: before the layers by the gradients
that are there, in their forward pass by activations and copies of weights, from there to the end of
the last layer's backward pass by what is kept, and in that of the first layer by gradients. What
lies between is never more than the larger of the last two. A frozen tower keeps nothing of a layer
behind, so two of its layers stand for all.
"""

from __future__ import annotations

import copy
import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import torch
from transformers import Qwen2Config, SiglipVisionConfig

from siqvl.device import DTYPES, Precision
from siqvl.model.assemble import build_on_meta
from siqvl.model.configuration import SiQVLConfig
from siqvl.recipe import DPOStage, Part, SFTStage
from siqvl.stages import part_of
from siqvl.training.memory.batch_shape import BatchShape
from siqvl.training.memory.fake_step import FakeStep

FEW = (3, 4)  # layers that are looked at
PARTS: tuple[Part, ...] = ("vision_tower", "projector", "language_model")
ADAM_STATES = 2  # running means of gradients and of their squares, each as large as the weights


@dataclass(frozen=True)
class Processes:
    """Those that train together.

    Attributes:
        count: of all machines.
        sharded: FSDP: weights, gradients and optimizer states are shared out.
        on_gpu: each on a GPU of its own.
    """

    count: int = 1
    sharded: bool = False
    on_gpu: bool = False


@dataclass(frozen=True)
class StepMemory:
    """Bytes of one training process at the peak of its largest step.

    Attributes:
        shape: the batch that takes most.
        weights: by part, buffers with them; frozen and quantized ones as they are kept.
        gradients: of what learns.
        optimizer: AdamW's two states.
        ema: the running mean of the weights, if one is kept.
        buckets: copies of gradients that DDP sends to other processes.
        gathered: of FSDP, layers that are whole while they are computed.
        batch: the rest: batches, activations, copies of weights, logits; beside all gradients.
        logits: of the chunk that is in memory at once, counted in `batch`.
    """

    shape: BatchShape
    weights: dict[Part, int]
    gradients: int
    optimizer: int
    ema: int
    buckets: int
    gathered: int
    batch: int
    logits: int

    @property
    def fixed(self) -> int:
        """What there is whatever the batch."""
        held = (self.gradients, self.optimizer, self.ema, self.buckets, self.gathered)
        return sum(self.weights.values()) + sum(held)

    @property
    def total(self) -> int:
        return self.fixed + self.batch


def step_memory(
    config: SiQVLConfig,
    stage: SFTStage,
    shapes: Sequence[BatchShape],
    precision: Precision,
    processes: Processes | None = None,
) -> StepMemory:
    """The memory of the largest of some batches.

    Exact for the tensors that PyTorch makes. What a kernel uses inside of itself, what the
    allocator loses between tensors, and CUDA's own some hundred megabytes come on top; `compile` is
    not looked at, and takes less. FSDP is arithmetic over what its documentation says.

    Args:
        config: of the model, its attention resolved.
        shapes: batches, of which the largest in memory is told.
    """
    processes = processes or Processes()
    few = _few(config)
    if not few:
        sizes = _Sizes(config, stage, precision, processes)
        found = [(max(sizes.peaks(shape)), shape) for shape in shapes]
        peak, shape = max(found, key=lambda one: one[0])
        return _memory(sizes.bytes, peak, shape, sizes.config, stage, precision, processes)
    depth = config.text_config.num_hidden_layers
    small, large = (_Sizes(_cut(config, stage, one), stage, precision, processes) for one in few)
    grown = {name: _grow(small.bytes[name], large.bytes[name], depth) for name in small.bytes}
    grown["weights/vision_tower"] = _tower_bytes(config.vision_config.to_json_string())
    found = []
    for shape in shapes:
        pairs = zip(small.peaks(shape), large.peaks(shape), strict=True)
        found.append((max(_grow(one, other, depth) for one, other in pairs), shape))
    peak, shape = max(found, key=lambda one: one[0])
    return _memory(grown, peak, shape, config, stage, precision, processes)


def parameter_counts(config: SiQVLConfig) -> dict[Part, int]:
    """Weights of each part in full, those of a tied head once."""
    few = _few(config)
    models = [build_on_meta(_cut_text(config, one)) for one in few or (0,)]
    counts = []
    for model in models:
        found = dict.fromkeys(PARTS, 0)
        for name, one in model.named_parameters():
            found[part_of(name)] += one.numel()
        counts.append(found)
    if few is None:
        return counts[0]
    depth = config.text_config.num_hidden_layers
    return {part: _grow(counts[0][part], counts[1][part], depth) for part in PARTS}


def pass_memory(
    config: SiQVLConfig,
    stage: SFTStage,
    precision: Precision,
    *,
    features_batch: int,
    pairs: BatchShape | None,
    on_gpu: bool = False,
) -> dict[str, int]:
    """Bytes that passes before training take beside the weights, which are whole in them.

    Args:
        features_batch: pictures in one pass of the tower, where the stage caches features.
        pairs: a batch of the reference's pass.

    Returns:
        `features` and `reference`, those that there are.
    """
    cut = _cut(config, stage, FEW[0]) if _few(config) else config
    step = FakeStep(cut, stage, precision, on_gpu=on_gpu)
    found = {}
    if stage.cached_features:
        found["features"] = step.pass_peak(lambda one: one.tower_pass(features_batch))
    if pairs is not None and isinstance(stage, DPOStage) and stage.compares:
        found["reference"] = step.pass_peak(lambda one: one.reference_pass(pairs))
    return found


class _Sizes:
    """Bytes of a model of some depth; each grows in proportion to it."""

    def __init__(
        self, config: SiQVLConfig, stage: SFTStage, precision: Precision, processes: Processes
    ) -> None:
        self.config, self.stage = config, stage
        self.step = FakeStep(
            config,
            stage,
            precision,
            alone=processes.count == 1,
            sharded=processes.sharded,
            on_gpu=processes.on_gpu,
        )
        self.bytes = part_bytes(self.step.model, float32=processes.sharded)

    def peaks(self, shape: BatchShape) -> list[int]:
        """Most bytes alive in each of the four regions of a step, all gradients not among them."""
        # the third chunk of logits and those after it take no more than two do
        live = self.step.step(shape, min(shape.learned, 3 * self.stage.head_chunk))
        line, marks = live.timeline, live.marks
        forward, backward = marks["forward"], marks["backward"]
        last, first = marks.get("last", len(line)), marks.get("first", backward)
        regions = (line[:forward], line[forward:backward], line[backward : last + 1], line[first:])
        return [max(region, default=0) for region in regions]


def part_bytes(model: torch.nn.Module, *, float32: bool = False) -> dict[str, int]:
    """`weights/<part>`, `learning`, and of FSDP's units `layer` and `root`, each tensor once.

    Args:
        float32: count weights as they are kept, whatever they are here.
    """
    found = {f"weights/{part}": 0 for part in PARTS}
    found |= dict.fromkeys(("learning", "learning in root", "root"), 0)
    named: Iterable[tuple[str, torch.Tensor]] = [*model.named_parameters(), *model.named_buffers()]
    for name, tensor in named:
        size = 4 * tensor.numel() if float32 and tensor.is_floating_point() else tensor.nbytes
        found[f"weights/{part_of(name)}"] += size
        in_root = ".layers." not in name
        found["root"] += tensor.nbytes if in_root else 0
        if tensor.requires_grad:
            found["learning"] += size
            found["learning in root"] += tensor.nbytes if in_root else 0
    return found


def _memory(
    sizes: dict[str, int],
    peak: int,
    shape: BatchShape,
    config: SiQVLConfig,
    stage: SFTStage,
    precision: Precision,
    processes: Processes,
) -> StepMemory:
    share = processes.count if processes.sharded else 1
    learning = sizes["learning"] // share
    gathered = 0
    if processes.sharded:
        layers: Any = config.text_config.num_hidden_layers
        size = DTYPES[precision].itemsize
        layer = sizes["weights/language_model"] // 4 * size // layers
        # the layer that is computed, the next one, and gradients of one; what is in no layer
        gathered = sizes["root"] + sizes["learning in root"] + 3 * layer
    logits = min(shape.learned, stage.head_chunk) * config.text_config.vocab_size * 4
    return StepMemory(
        shape=shape,
        weights={part: sizes[f"weights/{part}"] // share for part in PARTS},
        gradients=learning,
        optimizer=ADAM_STATES * learning,
        ema=learning if stage.ema is not None else 0,
        # DistributedDataParallel copies gradients into buckets, which it sends
        buckets=learning if processes.count > 1 and not processes.sharded else 0,
        gathered=gathered,
        batch=max(0, peak - (0 if processes.sharded else learning)),
        logits=logits,
    )


def _few(config: SiQVLConfig) -> tuple[int, int] | None:
    """Numbers of layers that stand for all of a language model; None: look at all."""
    text = config.text_config
    kinds = set(getattr(text, "layer_types", None) or [])
    return FEW if text.num_hidden_layers > sum(FEW) and len(kinds) <= 1 else None


def _cut(config: SiQVLConfig, stage: SFTStage, layers: int) -> SiQVLConfig:
    cut = _cut_text(config, layers)
    if "vision_tower" not in stage.trainable:
        cut.vision_config.num_hidden_layers = 2
    return cut


def _cut_text(config: SiQVLConfig, layers: int) -> SiQVLConfig:
    """A copy with so many layers in its language model; 0: with all."""
    cut = copy.deepcopy(config)
    text = cut.text_config
    layers = layers or text.num_hidden_layers
    text.num_hidden_layers = layers
    if getattr(text, "layer_types", None):
        text.layer_types = text.layer_types[:layers]
    return cut


def _grow(small: int, large: int, depth: int) -> int:
    return large + (large - small) * (depth - FEW[1])


@lru_cache
def _tower_bytes(vision: str) -> int:
    """Bytes of a whole tower in float32, by its config as JSON."""
    text = Qwen2Config(
        hidden_size=8, intermediate_size=8, num_hidden_layers=1, num_attention_heads=1,
        num_key_value_heads=1, vocab_size=8,
    )  # fmt: skip
    tower = SiglipVisionConfig(**json.loads(vision))
    config = SiQVLConfig(vision_config=tower, text_config=text, image_token_id=7)
    return part_bytes(build_on_meta(config).float())["weights/vision_tower"]
