"""A training step of a model of fake tensors: shapes without content, so of any size, in seconds.

What is alive after each operation is what PyTorch's allocator would hold: the tensors of the batch,
activations, copies that autocast makes of weights, logits, gradients. Kernels' own scratch memory
is not seen.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch._subclasses.fake_tensor import FakeTensorMode

from siqvl.adapters.attach import attach
from siqvl.adapters.frozen_weights import keep_in
from siqvl.device import DTYPES, Precision, autocast
from siqvl.model.assemble import build_on_meta
from siqvl.model.configuration import SiQVLConfig
from siqvl.model.token_log_probs import token_log_probs
from siqvl.recipe import DPOStage, SFTStage
from siqvl.stages import part_of
from siqvl.training.loop.embedding import add_embedding_gradient_in_place
from siqvl.training.memory.batch_shape import BatchShape
from siqvl.training.memory.live_bytes import LiveBytes
from siqvl.training.memory.quantized_shape import leave_unfused, quantize_shapes


class FakeStep:
    """A training step of a model of fake tensors, made ready as a stage does it.

    Args:
        config: of the model, its attention resolved.
        alone: one process trains.
        sharded: FSDP: weights are whole, in the precision of the products, for the layers alone
            that are being computed, and a gradient leaves as soon as it is there. What is alive is
            told without either.
        on_gpu: the batches of an accumulated step come one by one; beside a CPU's they wait.
    """

    def __init__(
        self,
        config: SiQVLConfig,
        stage: SFTStage,
        precision: Precision,
        *,
        alone: bool = True,
        sharded: bool = False,
        on_gpu: bool = False,
    ) -> None:
        self.stage, self.precision = stage, precision
        self.waiting = 0 if on_gpu else stage.accumulation - 1
        self.sharded = sharded
        config = copy.deepcopy(config)
        #: whether attention is given a mask
        self.masked = config.text_config._attn_implementation in ("sdpa", "eager")
        if not self.masked:
            # FlashAttention keeps what sdpa does without a mask: its output and a number a row
            config.vision_config._attn_implementation = "sdpa"
            config.text_config._attn_implementation = "sdpa"
        # a published config may say bfloat16; training keeps float32, and autocast does the rest
        self.model = model = build_on_meta(config).float()
        # whose rows a sparse gradient leaves out, which is a question about values
        model.get_input_embeddings().padding_idx = None
        self._let_learn()
        if stage.gradient_checkpointing:
            model.activation_checkpointing_enable({"use_reentrant": False})
        self.fake = FakeTensorMode(allow_non_fake_inputs=True)
        if sharded:
            model.to(DTYPES[precision])
        with self.fake:
            model.to_empty(device="cpu")
            model.tie_weights()
        if alone and not on_gpu:  # where training does the same
            add_embedding_gradient_in_place(model)
        if sharded:
            for parameter in model.parameters():
                if parameter.requires_grad:
                    parameter.register_post_accumulate_grad_hook(_forget_gradient)
        model.train()

    def _let_learn(self) -> None:
        """As `siqvl.training.learning` does."""
        for name, parameter in self.model.named_parameters():  # as `freeze`, which also says so
            parameter.requires_grad_(part_of(name) in self.stage.in_full)
        adapter = self.stage.adapter
        if adapter is None:
            return
        if adapter.quantize != "none":
            quantize_shapes(self.model, adapter.quantize)
        elif not self.sharded:
            keep_in(self.model, self.precision)
        attach(self.model, adapter)
        if adapter.quantize != "none":
            leave_unfused(self.model)

    def timeline(self, shape: BatchShape, learned: int) -> list[int]:
        """Bytes alive after each operation of a step, without weights and optimizer states.

        Args:
            learned: tokens whose probability is computed, in place of the shape's.
        """
        return self.step(shape, learned).timeline

    def step(self, shape: BatchShape, learned: int) -> LiveBytes:
        """The same, with `marks`: where the first layer of the language model begins, where
        the backward pass does, where the last layer is behind in it, and where the first one begins
        there.
        """
        with self.fake, LiveBytes() as live, self._marks(live):
            for parameter in self.model.parameters():
                # with accumulation gradients of the batches before are there already
                kept = parameter.requires_grad and self.stage.accumulation > 1
                kept = kept and not self.sharded
                parameter.grad = torch.empty_like(parameter) if kept else None
            waiting = [self._batch(shape) for _ in range(self.waiting)]
            batch = self._batch(shape)
            with autocast(torch.device("cpu"), self.precision):
                loss = self._loss(shape, batch, learned)
            live.marks["backward"] = len(live.timeline)
            loss.backward()
            del waiting, batch
        for parameter in self.model.parameters():
            parameter.grad = None
        return live

    @contextmanager
    def _marks(self, live: LiveBytes) -> Iterator[None]:
        layers: Any = self.model.model.language_model.layers
        outputs = {"last": layers[len(layers) - 2], "first": layers[0]}

        def mark(name: str) -> None:
            live.marks.setdefault(name, len(live.timeline))

        def forward_begins(*_: Any) -> None:
            mark("forward")

        def watch(name: str, output: Any) -> None:
            hidden = output if isinstance(output, torch.Tensor) else output[0]
            if hidden.requires_grad and torch.is_grad_enabled():
                hidden.register_hook(lambda _: mark(name))

        hooks = [layers[0].register_forward_pre_hook(forward_begins)]
        for name, layer in outputs.items():
            hooks.append(
                layer.register_forward_hook(lambda _, __, output, name=name: watch(name, output))
            )
        try:
            yield
        finally:
            for hook in hooks:
                hook.remove()

    def pass_peak(self, forward: Callable[[FakeStep], Any]) -> int:
        """Most bytes alive while `forward` computes something without gradients."""
        cast = autocast(torch.device("cpu"), self.precision)
        with self.fake, LiveBytes() as live, torch.no_grad(), cast:
            forward(self)
        return max(live.timeline, default=0)

    def tower_pass(self, images: int) -> Any:
        """The tower's features of some pictures, as they are cached."""
        pixels = self._pixels(images)
        return self.model.model.get_vision_features(pixels).to(torch.bfloat16)

    def reference_pass(self, shape: BatchShape) -> Any:
        """The log-probabilities of a batch of pairs."""
        return self._loss(shape, self._batch(shape), shape.learned)

    @property
    def pairs(self) -> bool:
        """Whether rows are pairs."""
        return isinstance(self.stage, DPOStage)

    @property
    def shared_prompt(self) -> bool:
        """Whether the sides of a pair share their prompt, which needs a mask of its own."""
        return isinstance(self.stage, DPOStage) and self.stage.shared_prompt and self.masked

    def _batch(self, shape: BatchShape) -> dict[str, torch.Tensor]:
        """The tensors of a batch, as collators make them."""
        size = (shape.rows, shape.width) if self.masked else (1, shape.rows * shape.width)
        names = ["input_ids", "labels"]
        padded = self.stage.batching != "packed" and not self.pairs
        names.append("attention_mask" if padded else "position_ids")
        if self.shared_prompt:
            names.append("segments")
        batch = {name: torch.zeros(size, dtype=torch.long) for name in names}
        if not shape.images:
            return batch
        if not self.stage.cached_features:
            return batch | {"pixel_values": self._pixels(shape.images)}
        vision = self.model.config.vision_config
        patches = self.model.config.patch_grid**2
        features = torch.empty(shape.images, patches, vision.hidden_size, dtype=torch.bfloat16)
        return batch | {"vision_features": features}

    def _pixels(self, images: int) -> torch.Tensor:
        vision = self.model.config.vision_config
        return torch.empty(images, vision.num_channels, vision.image_size, vision.image_size)

    def _loss(
        self, shape: BatchShape, batch: dict[str, torch.Tensor], learned: int
    ) -> torch.Tensor:
        """The model's parts one after the other: its own `forward` also looks at values."""
        ids = batch["input_ids"]
        mask = self._mask(batch) if self.masked else None
        # for pairs the tower runs before the model
        features = self._features(batch, shape) if self.pairs else None
        embeddings = self.model.get_input_embeddings()(ids)
        if not self.pairs:
            features = self._features(batch, shape)
        encoded = None
        if features is not None:
            encoded = self.model.model.project_vision_features(features).pooler_output
            assert encoded is not None
            tokens = encoded.flatten(0, 1).to(embeddings.dtype)
            places = (ids == self.model.config.image_token_id).unsqueeze(-1)
            embeddings = embeddings.masked_scatter(places, tokens)
            del tokens, features
        hidden = self.model.model.language_model(
            inputs_embeds=embeddings,
            attention_mask=mask,
            position_ids=batch.get("position_ids") if self.masked else None,
            use_cache=False,
        ).last_hidden_state
        del embeddings, mask
        targets = torch.zeros(learned, dtype=torch.long)
        rows = hidden.flatten(0, 1)[targets]
        weight = self.model.get_output_embeddings().weight
        return -token_log_probs(rows, weight, targets, self.stage.head_chunk).sum()

    def _features(self, batch: dict[str, torch.Tensor], shape: BatchShape) -> torch.Tensor | None:
        """Of the tower, for every place that shows a picture; without cached ones it runs."""
        features = batch.get("vision_features")
        if "pixel_values" in batch:
            features = self.model.model.get_vision_features(batch["pixel_values"])
        if features is None or not self.pairs or self.shared_prompt:
            return features
        return features[torch.zeros(shape.images * shape.sides, dtype=torch.long)]

    def _mask(self, batch: dict[str, torch.Tensor]) -> torch.Tensor:
        rows, width = batch["input_ids"].shape
        if self.model.config.text_config._attn_implementation == "eager":
            return torch.zeros((rows, 1, width, width), dtype=torch.float32)
        return torch.ones((rows, 1, width, width), dtype=torch.bool)


def _forget_gradient(parameter: torch.Tensor) -> None:
    parameter.grad = None
