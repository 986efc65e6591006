"""The layer with an adapter against PEFT's own, forward and backward."""

import peft
import pytest
import torch
from peft.tuners.lora import Linear
from torch import nn

from siqvl.adapters.fused_linear import FusedLinear


class Base(nn.Module):
    def __init__(self, bias: bool) -> None:
        super().__init__()
        self.layer = nn.Linear(24, 40, bias=bias)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.layer(x)


def layers(*, bias: bool = True, dropout: float = 0.0) -> tuple[nn.Module, nn.Module]:
    """PEFT's layer and ours, of the same weights; neither A nor B is zero."""
    made = []
    for kind in (Linear, FusedLinear):
        torch.manual_seed(0)
        config = peft.LoraConfig(
            r=4,
            lora_alpha=6,
            lora_dropout=dropout,
            target_modules=["layer"],
            init_lora_weights=False,
        )
        model = peft.inject_adapter_in_model(config, Base(bias))
        assert type(model.layer) is Linear
        model.layer.__class__ = kind
        made.append(model.train())
    return made[0], made[1]


def passed(model: nn.Module, x: torch.Tensor, precision: torch.dtype | None) -> list[torch.Tensor]:
    x = x.clone().requires_grad_()
    with torch.autocast("cpu", precision, enabled=precision is not None):
        out = model(x)
    (out.float() ** 2).sum().backward()
    learnt = [one.grad for one in model.parameters() if one.requires_grad]
    frozen = [one.grad for one in model.parameters() if not one.requires_grad]
    assert learnt
    assert frozen == [None] * len(frozen)
    return [out, x.grad, *learnt]


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("shape", [(7, 24), (2, 3, 24), (1, 2, 3, 24)])
def test_it_computes_what_pefts_does(bias: bool, shape: tuple[int, ...]) -> None:
    theirs, ours = layers(bias=bias)
    x = torch.randn(shape)
    for one, other in zip(passed(theirs, x, None), passed(ours, x, None), strict=True):
        assert other.dtype == one.dtype
        torch.testing.assert_close(other, one, atol=1e-5, rtol=1e-5)


def test_under_autocast_its_types_are_pefts() -> None:
    theirs, ours = layers()
    for layer in (theirs.layer, ours.layer):  # kept rounded, as a stage does
        layer.base_layer.weight.data = layer.base_layer.weight.data.bfloat16()
    x = torch.randn(5, 24)
    pairs = zip(passed(theirs, x, torch.bfloat16), passed(ours, x, torch.bfloat16), strict=True)
    for one, other in pairs:
        assert other.dtype == one.dtype
        torch.testing.assert_close(other, one, atol=0.05 * one.abs().max().item(), rtol=0.05)


def test_weights_kept_rounded_give_the_same_bits() -> None:
    """Autocast rounds float32 weights in every product; rounded ones are what it makes of them."""
    _, whole = layers()
    _, kept = layers()
    for weight in (kept.layer.base_layer.weight, kept.layer.base_layer.bias):
        weight.data = weight.data.bfloat16()
    x = torch.randn(5, 24)
    pairs = zip(passed(whole, x, torch.bfloat16), passed(kept, x, torch.bfloat16), strict=True)
    for one, other in pairs:
        assert torch.equal(one, other)


def test_gradients_are_those_of_finite_differences() -> None:
    """By finite differences, in float64."""
    _, ours = layers()
    ours.double()
    x = torch.randn(3, 24, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(ours, (x,))


def test_dropout_is_pefts() -> None:
    theirs, ours = layers(dropout=0.5)
    x, found = torch.randn(50, 24), []
    for model in (theirs, ours):
        torch.manual_seed(1)
        found.append(passed(model, x, None))
    for one, other in zip(*found, strict=True):
        assert torch.equal(one, other)
    assert not torch.equal(ours(x), ours.eval()(x))


def test_turned_off_it_is_the_layer_that_was() -> None:
    _, ours = layers()
    x = torch.randn(5, 24)
    ours.layer.enable_adapters(False)
    assert torch.equal(ours(x), ours.layer.base_layer(x))
    ours.layer.enable_adapters(True)
    assert not torch.equal(ours(x), ours.layer.base_layer(x))


def test_an_input_that_asks_for_no_gradient_costs_none() -> None:
    _, ours = layers()
    ours(torch.randn(5, 24)).sum().backward()
    assert ours.layer.lora_A["default"].weight.grad.abs().sum() > 0
