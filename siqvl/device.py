"""The device that a model answers on, and what it computes in."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch


def best_device() -> str:
    """`cuda`, `mps` or `cpu`: the first of these that this machine has."""
    import torch

    if torch.cuda.is_available():
        return "cuda"
    return "mps" if torch.backends.mps.is_available() else "cpu"


def autocast(device: torch.device, precision: str) -> torch.autocast:
    """Compute as training does in `fp32`, `bf16` or `fp16`; nothing changes in the first."""
    import torch

    dtype = torch.float16 if precision == "fp16" else torch.bfloat16
    return torch.autocast(device.type, dtype, enabled=precision != "fp32")
