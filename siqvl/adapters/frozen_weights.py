"""Frozen weights beside adapters, kept in no more bits than what they are computed in needs."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import nn

from siqvl.adapters.attach import LAYERS
from siqvl.adapters.mapped_pages import let_go
from siqvl.adapters.widened import WidenedLinear
from siqvl.device import DTYPES, Precision
from siqvl.model.modeling import SiQVLForConditionalGeneration


def keep_in(model: SiQVLForConditionalGeneration, precision: Precision) -> None:
    """Keep the frozen linear layers of the language model in half of their memory, in place.

    Done after `attach`: PEFT gives adapters the type of the weights beside them, and what learns
    learns in float32.

    Autocast rounds weights to the precision of a stage in every product, from float32 and to the
    same bits; kept so, nothing is rounded twice. In float32 only what bfloat16 holds to the last
    bit is kept in it, as published weights mostly are, and made float32 again for a product, to the
    same bits. What else there is (embeddings, norms, the tower) stays in float32. A merge starts
    from the parent's own weights, see `merged_weights`.
    """
    dtype = DTYPES[precision]
    for _, layer in linear_layers(model):
        if dtype == torch.float32:
            _keep_exact(layer)
            continue
        for weight in (layer.weight, layer.bias):
            if weight is not None and not weight.requires_grad and weight.is_floating_point():
                weight.data = weight.data.to(dtype)


def _keep_exact(layer: nn.Linear) -> None:
    """Keep a frozen weight in bfloat16 if that holds it to the last bit."""
    weight = layer.weight
    if type(layer) is not nn.Linear or weight.requires_grad or weight.dtype != torch.float32:
        return
    if weight.is_meta or type(weight.data) is not torch.Tensor:
        return  # without content nobody knows
    half = weight.data.bfloat16()
    if torch.equal(half.float(), weight.data):
        let_go(weight.data)
        weight.data = half
        layer.__class__ = WidenedLinear


def linear_layers(model: SiQVLForConditionalGeneration) -> Iterator[tuple[str, nn.Linear]]:
    """Give the language model's own linear layers with their names, adapters' left out; and an
    output head whose weights are not the embedding's."""
    tied = model.model.language_model.embed_tokens.weight is model.lm_head.weight
    for name, layer in model.named_modules():
        inside = name.startswith(f"{LAYERS}.") and ".lora_" not in name
        if isinstance(layer, nn.Linear) and (inside or (name == "lm_head" and not tied)):
            yield name, layer


def is_exact(layer: nn.Linear) -> bool:
    """Whether a layer's weights are those of its checkpoint, and not rounded or quantized."""
    return layer.weight.dtype == torch.float32
