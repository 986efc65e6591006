"""`auto` is bf16 only where it is computed, not emulated."""

import pytest
import torch

from siqvl.device import resolve_precision
from siqvl.errors import UserError


@pytest.mark.parametrize(
    ("capabilities", "expected"),
    [
        ({"avx2": True}, "fp32"),
        ({"avx512_bf16": True}, "bf16"),
        ({"avx512_bf16": False, "amx_bf16": True}, "bf16"),
    ],
)
def test_auto_on_a_cpu(monkeypatch, capabilities, expected) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: capabilities)
    assert resolve_precision("auto") == expected


@pytest.mark.parametrize(("supported", "expected"), [(True, "bf16"), (False, "fp32")])
def test_auto_on_a_gpu(monkeypatch, supported, expected) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda **kwargs: supported)
    assert resolve_precision("auto") == expected


def test_what_a_recipe_asks_for_by_name_is_kept_or_refused(monkeypatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert resolve_precision("fp32") == "fp32"
    assert resolve_precision("bf16") == "bf16"
    with pytest.raises(UserError, match="fp16 needs a CUDA GPU"):
        resolve_precision("fp16", allow_fp16=True)


def test_fp16_has_to_be_allowed(monkeypatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    with pytest.raises(UserError, match=r"fp16 overflows in Qwen's activations: .* allow_fp16"):
        resolve_precision("fp16")
    assert resolve_precision("fp16", allow_fp16=True) == "fp16"
