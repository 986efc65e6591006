"""What a batch takes in memory, and how many rows would fit, before anything is trained.

A whole training step of the real model, forward and backward, is run on fake tensors: they have
shapes and no content, so it takes a second or two for a model of a billion parameters. All that is
alive after each operation is added up: activations, copies that autocast makes of weights, logits,
gradients. That is done for two sizes of a batch, between and beyond which what is alive after one
and the same operation grows in proportion.
"""

from __future__ import annotations

import copy
import logging
from collections.abc import Sequence

import torch
from torch._subclasses.fake_tensor import FakeTensorMode

from siqvl.device import DTYPES, Precision, autocast, device_memory
from siqvl.model.assemble import build_on_meta
from siqvl.model.configuration import SiQVLConfig
from siqvl.model.modeling import SiQVLForConditionalGeneration
from siqvl.model.token_log_probs import token_log_probs
from siqvl.recipe import Recipe, SFTStage
from siqvl.stages import part_of
from siqvl.training.loop.embedding import add_embedding_gradient_in_place
from siqvl.training.memory.batch_shape import BatchShape
from siqvl.training.memory.estimate import MemoryEstimate
from siqvl.training.memory.live_bytes import LiveBytes

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
    step = FakeStep(config, stage, precision, alone=processes == 1)
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


class FakeStep:
    """A training step of a model of fake tensors, made ready as a stage does it.

    Args:
        config: of the model.
        alone: one process trains.
    """

    def __init__(
        self, config: SiQVLConfig, stage: SFTStage, precision: Precision, *, alone: bool
    ) -> None:
        self.stage = stage
        self.precision = precision
        config = copy.deepcopy(config)
        #: whether attention is given a mask
        self.masked = config.text_config._attn_implementation in ("sdpa", "eager")
        if not self.masked:
            # FlashAttention keeps what sdpa does without a mask: its output and a number a row
            config.vision_config._attn_implementation = "sdpa"
            config.text_config._attn_implementation = "sdpa"
        self.model = model = build_on_meta(config)
        for name, parameter in model.named_parameters():  # as `freeze` does, which also says so
            parameter.requires_grad_(part_of(name) in stage.trainable)
        if stage.gradient_checkpointing:
            model.activation_checkpointing_enable({"use_reentrant": False})
        self.fake = FakeTensorMode(allow_non_fake_inputs=True)
        with self.fake:
            model.to_empty(device="cpu")
            model.tie_weights()
        if alone and not torch.cuda.is_available():  # where training does the same
            add_embedding_gradient_in_place(model)
        model.train()

    def timeline(self, shape: BatchShape, learned: int) -> list[int]:
        """Bytes alive after each operation of a step, without weights and optimizer states."""
        with self.fake, LiveBytes() as live:
            for parameter in self.model.parameters():
                # with accumulation gradients of the batches before are there already
                kept = parameter.requires_grad and self.stage.accumulation > 1
                parameter.grad = torch.empty_like(parameter) if kept else None
            with autocast(torch.device("cpu"), self.precision):
                loss = self._loss(shape, learned)
            loss.backward()
        for parameter in self.model.parameters():
            parameter.grad = None
        return live.timeline

    def _loss(self, shape: BatchShape, learned: int) -> torch.Tensor:
        """The model's parts one after the other: its own `forward` also looks at values."""
        size = (shape.rows, shape.width) if self.masked else (1, shape.rows * shape.width)
        ids = torch.zeros(size, dtype=torch.long)
        embeddings = self.model.get_input_embeddings()(ids)
        if shape.images:
            tokens = self._image_tokens(shape.images).flatten(0, 1).to(embeddings.dtype)
            places = (ids == self.model.config.image_token_id).unsqueeze(-1)
            embeddings = embeddings.masked_scatter(places, tokens)
            del tokens
        hidden = self.model.model.language_model(
            inputs_embeds=embeddings,
            attention_mask=self._mask(size) if self.masked else None,
            position_ids=torch.zeros(size, dtype=torch.long) if self.masked else None,
            use_cache=False,
        ).last_hidden_state
        del embeddings
        targets = torch.zeros(learned, dtype=torch.long)
        rows = hidden.flatten(0, 1)[targets]
        weight = self.model.get_output_embeddings().weight
        return -token_log_probs(rows, weight, targets, self.stage.head_chunk).sum()

    def _image_tokens(self, images: int) -> torch.Tensor:
        vision = self.model.config.vision_config
        if self.stage.cached_features:
            patches = self.model.config.patch_grid**2
            features = torch.empty(
                images, patches, vision.hidden_size, dtype=DTYPES[self.precision]
            )
            encoded = self.model.model.project_vision_features(features)
        else:
            pixels = torch.empty(images, vision.num_channels, vision.image_size, vision.image_size)
            encoded = self.model.get_image_features(pixels)
        assert encoded.pooler_output is not None
        return encoded.pooler_output

    def _mask(self, size: tuple[int, int]) -> torch.Tensor:
        shape = (size[0], 1, size[1], size[1])
        if self.model.config.text_config._attn_implementation == "eager":
            return torch.zeros(shape, dtype=torch.float32)
        return torch.ones(shape, dtype=torch.bool)


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
