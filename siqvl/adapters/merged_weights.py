"""Adapters added to the weights that they stand beside: a model as any other."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import torch

from siqvl.adapters.attach import NAME, adapted, is_adapter, plain_name
from siqvl.adapters.frozen_weights import is_exact, linear_layers
from siqvl.model.weight_files import weight_files

if TYPE_CHECKING:
    from siqvl.model.modeling import SiQVLForConditionalGeneration

Weights = dict[str, torch.Tensor]


@torch.no_grad()
def merged_weights(
    model: SiQVLForConditionalGeneration, parent: Path, weights: Weights | None = None
) -> Weights:
    """All weights of a model with its adapters merged, under the names that they have without.

    W + alpha / rank * B A, in float32. Weights that training keeps rounded or quantized are read
    from the parent checkpoint, so that no rounding is merged and what is frozen stays as it was,
    bit for bit. The model itself is not changed.

    Args:
        parent: folder of the checkpoint that the adapters were attached to.
        weights: of `model`, where it holds only a share of them (FSDP).
    """
    held = model.state_dict() if weights is None else weights
    rough = tuple(name for name, layer in linear_layers(model) if not is_exact(layer))
    inside = tuple(f"{name}." for name in rough)  # quantized ones have more than a weight and bias
    found = {
        plain_name(name): value
        for name, value in held.items()
        if not is_adapter(name) and not name.startswith(inside)
    }
    found |= stored_weights(parent, {plain_name(name) for name in rough})
    for name, layer in adapted(model).items():
        down, up = (held[f"{name}.{part}.{NAME}.weight"] for part in ("lora_A", "lora_B"))
        weight = found[f"{name}.weight"].float()
        change = up.float() @ down.float() * layer.scaling[NAME]
        found[f"{name}.weight"] = weight + change.to(weight.device)
    return found


def stored_weights(checkpoint: Path, layers: set[str]) -> Weights:
    """Weights of some layers as a checkpoint's files hold them, in one file or in several."""
    from safetensors import safe_open

    found = {}
    for file in weight_files(checkpoint):
        with safe_open(file, framework="pt") as stored:
            for name in stored.keys():  # noqa: SIM118  # it is no mapping
                if name.rpartition(".")[0] in layers:
                    found[name] = stored.get_tensor(name)
    return found
