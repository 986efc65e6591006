"""Frozen weights of the language model in 8 or 4 bits, by bitsandbytes on a CUDA GPU."""

from __future__ import annotations

from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

from siqvl.errors import UserError
from siqvl.recipe import Adapter, Recipe, Stage

if TYPE_CHECKING:
    import torch

    from siqvl.model.modeling import SiQVLForConditionalGeneration


def check_quantize(recipe: Recipe, stage: Stage) -> None:
    """Judges whether this machine can train a stage with its weights quantized.

    Raises:
        UserError: it has no CUDA GPU or no bitsandbytes, or the weights are to be sharded.
    """
    adapter = recipe.stage(stage).adapter
    if adapter is None or adapter.quantize == "none":
        return
    import torch

    key = f"stages.{stage}.adapter.quantize: {adapter.quantize}"
    if not torch.cuda.is_available():
        raise UserError(f"{key} needs a CUDA GPU, which this machine has not; set it to none")
    if find_spec("bitsandbytes") is None:
        raise UserError(f"{key} needs the package bitsandbytes: install it, or set it to none")
    if recipe.distributed.enabled and recipe.distributed.strategy == "fsdp":
        raise UserError(f"{key} needs whole weights on each GPU; set distributed.strategy: ddp")


def quantize(
    model: SiQVLForConditionalGeneration,
    adapter: Adapter,
    *,
    device: torch.device,
    compute: torch.dtype,
) -> None:
    """Put layers of 8 or 4 bits in the places of the language model's linear ones, in place.

    Done before `attach`. Layer after layer, so that the device holds one in full at a time.

    Args:
        device: where the quantized weights go.
        compute: what products with 4-bit weights are computed in.
    """
    import bitsandbytes
    from torch import nn

    layers: Any = model.model.language_model.layers
    for name, layer in [*layers.named_modules()]:
        if type(layer) is not nn.Linear:
            continue
        size = (layer.in_features, layer.out_features, layer.bias is not None)
        made: Any
        if adapter.quantize == "nf4":
            made = bitsandbytes.nn.Linear4bit(
                *size, compute_dtype=compute, quant_type="nf4", device="meta"
            )
            made.weight = bitsandbytes.nn.Params4bit(
                layer.weight.data, requires_grad=False, quant_type="nf4"
            )
        else:
            made = bitsandbytes.nn.Linear8bitLt(*size, has_fp16_weights=False, device="meta")
            made.weight = bitsandbytes.nn.Int8Params(
                layer.weight.data, requires_grad=False, has_fp16_weights=False
            )
        made.bias = layer.bias
        layers.set_submodule(name, made.to(device))
