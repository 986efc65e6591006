"""The precision of a stage on the machine that trains it."""

from __future__ import annotations

from typing import Literal

from siqvl.errors import UserError

Precision = Literal["fp32", "bf16", "fp16"]


def resolve_precision(precision: str, *, allow_fp16: bool = False) -> Precision:
    """What `precision` of a recipe means here; `auto` is bf16 where the hardware computes in it.

    Qwen's activations leave the range of fp16 (65,504), so `auto` never chooses it, and who wants
    it has to say so twice. A CPU without bf16 instructions emulates them, many times slower than
    fp32.

    Args:
        allow_fp16: the stage's.

    Raises:
        UserError: the precision is not to be had on this machine, or overflows.
    """
    import torch

    cuda = torch.cuda.is_available()
    if precision == "auto":
        return "bf16" if has_bf16() else "fp32"
    if precision == "fp16" and not allow_fp16:
        raise UserError(
            "precision fp16 overflows in Qwen's activations: use bf16 or fp32, or set "
            "allow_fp16: true to try it"
        )
    if precision == "fp16" and not cuda:
        raise UserError("precision fp16 needs a CUDA GPU; use bf16 or fp32 on this machine")
    if precision == "bf16" and cuda and not torch.cuda.is_bf16_supported():
        name = torch.cuda.get_device_name()
        raise UserError(f"{name} has no bfloat16; set precision: fp32 in the recipe")
    return precision  # type: ignore[return-value]  # the recipe allows no other


def has_bf16() -> bool:
    """Whether this machine computes in bfloat16, instead of emulating it."""
    import torch

    if torch.cuda.is_available():
        return torch.cuda.is_bf16_supported(including_emulation=False)
    if torch.backends.mps.is_available():
        return False  # autocast to bf16 needs macOS 14; fp32 runs everywhere
    capabilities = torch.cpu.get_capabilities()
    return any(capabilities.get(name, False) for name in ("avx512_bf16", "amx_bf16"))
