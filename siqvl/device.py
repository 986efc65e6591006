"""The device that a model answers on."""

from __future__ import annotations


def best_device() -> str:
    """`cuda`, `mps` or `cpu`: the first of these that this machine has."""
    import torch

    if torch.cuda.is_available():
        return "cuda"
    return "mps" if torch.backends.mps.is_available() else "cpu"
