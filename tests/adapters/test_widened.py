"""Weights made wide for a product, in the same memory again and again; pages that are let go."""

import threading

import torch
from safetensors.torch import save_file
from torch import nn

from siqvl.adapters.mapped_pages import let_go
from siqvl.adapters.widened import WidenedLinear, widened


def test_the_same_numbers_in_the_same_memory() -> None:
    large = torch.randn(64, 48).bfloat16()
    small = torch.randn(8, 48).bfloat16()
    first = widened(large, torch.float32)
    assert torch.equal(first, large.float())
    second = widened(small, torch.float32)
    assert torch.equal(second, small.float())
    assert second.data_ptr() == first.data_ptr()


def test_another_thread_has_memory_of_its_own() -> None:
    weight = torch.randn(64, 48).bfloat16()
    mine, others = widened(weight, torch.float32), []
    thread = threading.Thread(target=lambda: others.append(widened(-weight, torch.float32)))
    thread.start()
    thread.join()
    assert torch.equal(mine, weight.float())
    assert torch.equal(others[0], -mine)


def test_a_weight_of_that_type_is_itself() -> None:
    weight = torch.randn(4, 4)
    assert widened(weight, torch.float32) is weight


def test_a_layer_computes_what_the_wide_one_does() -> None:
    plain = nn.Linear(24, 40).requires_grad_(False)
    plain.weight.data = plain.weight.data.bfloat16().float()
    narrow = nn.Linear(24, 40).requires_grad_(False)
    narrow.weight.data, narrow.bias.data = plain.weight.data.bfloat16(), plain.bias.data
    narrow.__class__ = WidenedLinear
    gradients = []
    for layer in (plain, narrow):
        x = torch.linspace(-1, 1, 5 * 24).view(5, 24).requires_grad_()
        out = layer(x)
        out.square().sum().backward()
        gradients.append((out.detach(), x.grad))
    for one, other in zip(*gradients, strict=True):
        assert torch.equal(one, other)
    assert not narrow(torch.randn(2, 24)).requires_grad


def test_what_is_let_go_keeps_its_content(tmp_path) -> None:
    """Mapped from a file, changed after it was, in memory of its own, and smaller than a page."""
    from safetensors import safe_open

    wanted = torch.arange(300_000, dtype=torch.float32)
    save_file({"weight": wanted}, tmp_path / "a.safetensors")
    with safe_open(tmp_path / "a.safetensors", framework="pt") as file:
        mapped, changed = file.get_tensor("weight"), file.get_tensor("weight")
    changed[1000:2000] = -1.0
    for weight in (mapped, changed, wanted.clone(), wanted[:3].clone(), wanted[::2]):
        before = weight.clone()
        let_go(weight)
        assert torch.equal(weight, before)
