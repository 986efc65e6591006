"""A linear layer with an adapter in three products, with nothing as large as its output beside it.

PEFT computes base(x) + B(A(x)) * scaling with a tensor of the output's size for each of B's
product, its scaling and the sum. Here B's product is added to the output where it is, and backward
A's to the gradient of x. Only x and A(x) are kept for that, as in PEFT's.
"""

from __future__ import annotations

from typing import Any

import torch
from peft.tuners.lora import Linear
from torch import nn

from siqvl.adapters.widened import widened


class FusedLinear(Linear):
    """PEFT's layer, of which it takes the class in place; all but the plain case is left to it."""

    def forward(self, x: torch.Tensor, *args: Any, **kwargs: Any) -> torch.Tensor:
        """[..., in] -> [..., out], as PEFT's."""
        (name,) = self.lora_A
        drops = self.training and not isinstance(self.lora_dropout[name], nn.Identity)
        if args or kwargs or drops or self.disable_adapters or self.merged:
            return super().forward(x, *args, **kwargs)
        base: Any = self.base_layer
        device = x.device.type
        autocast = torch.is_autocast_enabled(device)
        dtype = torch.get_autocast_dtype(device) if autocast else x.dtype
        matrices = self.lora_A[name].weight, self.lora_B[name].weight
        with torch.autocast(device, enabled=False):
            return _FusedLinear.apply(
                x.to(dtype), base.weight, base.bias, *matrices, self.scaling[name]
            )


class _FusedLinear(torch.autograd.Function):
    """x W^T + bias + scaling * (x A^T) B^T, in the precision of x; W and bias do not learn."""

    @staticmethod
    def forward(
        ctx: Any,
        x: torch.Tensor,
        weight: torch.Tensor,
        bias: torch.Tensor | None,
        down: torch.Tensor,
        up: torch.Tensor,
        scaling: float,
    ) -> torch.Tensor:
        rows = x.flatten(0, -2)
        low = rows @ down.to(x.dtype).T
        ctx.save_for_backward(rows, weight, down, up, low)  # weights as they are, and no copies
        weight = widened(weight, x.dtype)
        out = rows @ weight.T if bias is None else torch.addmm(bias.to(x.dtype), rows, weight.T)
        out.addmm_(low, up.to(x.dtype).T, alpha=scaling)
        ctx.scaling, ctx.shape = scaling, x.shape
        return out.unflatten(0, x.shape[:-1])

    @staticmethod
    def backward(ctx: Any, gradient: torch.Tensor) -> tuple[Any, ...]:
        rows, weight, down, up, low = ctx.saved_tensors
        gradient = gradient.flatten(0, -2)
        of_low = (gradient @ up.to(gradient.dtype)).mul_(ctx.scaling)
        of_x = None
        if ctx.needs_input_grad[0]:
            of_x = gradient @ widened(weight, gradient.dtype)
            of_x = of_x.addmm_(of_low, down.to(gradient.dtype)).view(ctx.shape)
        of_down = (of_low.T @ rows).to(down.dtype)
        of_up = (gradient.T @ low).mul_(ctx.scaling).to(up.dtype)
        return of_x, None, None, of_down, of_up, None
