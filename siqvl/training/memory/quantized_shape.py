"""Linear layers whose frozen weights are kept in 8 or 4 bits, as shapes.

bitsandbytes' own layers need a CUDA device. These take what those take: the packed weights and
their scales, a weight of the products' precision while a product is computed, forward and again
backward, and nothing of a layer's input, as the weight does not learn.
"""

from __future__ import annotations

from typing import Any, Literal

import torch
from torch import nn

from siqvl.adapters.attach import LAYERS
from siqvl.model.modeling import SiQVLForConditionalGeneration

#: NF4 (Dettmers et al. 2023, arXiv:2305.14314) has a float32 scale for each block of 64 weights;
#: bitsandbytes' Linear4bit quantizes scales a second time (`compress_statistics`): 8 bits each, a
#: float32 for 256 of them, and a table of 256 for that and of 16 for the weights.
BLOCK, SCALES_IN_BLOCK, TABLES = 64, 256, 4 * (256 + 16)

Bits = Literal["int8", "nf4"]


def quantized_bytes(weights: int, rows: int, bits: Bits) -> int:
    """Bytes of a layer's weights: int8 has a float32 scale for each of its rows.

    Args:
        weights: how many there are.
        rows: the layer's outputs.
    """
    if bits == "int8":
        return weights + 4 * rows
    blocks = -(-weights // BLOCK)
    return -(-weights // 2) + blocks + 4 * -(-blocks // SCALES_IN_BLOCK) + TABLES


def quantize_shapes(model: SiQVLForConditionalGeneration, bits: Bits) -> None:
    """Put such layers in the places of those that `siqvl.adapters.quantize` replaces, in place."""
    layers: Any = model.model.language_model.layers
    assert LAYERS == "model.language_model.layers"
    for name, layer in [*layers.named_modules()]:
        if type(layer) is nn.Linear:
            layers.set_submodule(name, QuantizedShape(layer, bits))


def leave_unfused(model: SiQVLForConditionalGeneration) -> None:
    """Give such layers with adapters PEFT's own forward pass, as bitsandbytes' layers have."""
    from peft.tuners.lora import Linear

    for layer in model.modules():
        if isinstance(layer, Linear) and isinstance(layer.base_layer, QuantizedShape):
            layer.__class__ = Linear


class QuantizedShape(nn.Linear):
    """A frozen linear layer of packed weights. Its products are of the right size, and empty."""

    def __init__(self, layer: nn.Linear, bits: Bits) -> None:
        nn.Module.__init__(self)
        self.in_features, self.out_features = layer.in_features, layer.out_features
        size = quantized_bytes(layer.weight.numel(), layer.out_features, bits)
        packed = torch.empty(size, dtype=torch.uint8, device=layer.weight.device)
        self.weight = nn.Parameter(packed, requires_grad=False)
        self.bias = layer.bias

    def forward(self, input: torch.Tensor) -> torch.Tensor:
        """[..., in] -> [..., out]."""
        device = input.device.type
        if torch.is_autocast_enabled(device):
            input = input.to(torch.get_autocast_dtype(device))
        out = _Product.apply(input, self.out_features)
        return out if self.bias is None else out + self.bias.to(out.dtype)


class _Product(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: torch.Tensor, out: int) -> torch.Tensor:
        ctx.size = (out, x.shape[-1])
        return x @ torch.empty(ctx.size, dtype=x.dtype, device=x.device).T

    @staticmethod
    def backward(ctx: Any, gradient: torch.Tensor) -> tuple[Any, ...]:
        return gradient @ torch.empty(ctx.size, dtype=gradient.dtype, device=gradient.device), None
