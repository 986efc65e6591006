"""Frozen weights beside adapters, kept in the precision that they are computed in."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import nn

from siqvl.adapters.attach import LAYERS
from siqvl.device import DTYPES, Precision
from siqvl.model.modeling import SiQVLForConditionalGeneration


def keep_in(model: SiQVLForConditionalGeneration, precision: Precision) -> None:
    """Round the frozen linear layers of the language model to the precision of a stage, in place.

    Done after `attach`: PEFT gives adapters the type of the weights beside them, and what learns
    learns in float32.

    Autocast rounds them so in every product, from float32 and to the same bits; kept so, they take
    half the memory, and nothing is rounded twice. What else there is (embeddings, norms, the tower)
    stays in float32. A merge starts from the parent's own weights, see `merged_weights`.
    """
    dtype = DTYPES[precision]
    for _, layer in linear_layers(model):
        for weight in (layer.weight, layer.bias):
            if weight is not None and not weight.requires_grad and weight.is_floating_point():
                weight.data = weight.data.to(dtype)


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
