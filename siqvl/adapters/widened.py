"""Frozen weights that are kept in half of their bits, made wide for one product after another."""

from __future__ import annotations

import threading
from typing import Any

import torch
from torch import nn
from torch.nn import functional as F

#: `room`: where the weight of the product that is being computed lies. A new tensor for every layer
#: would leave holes between the tensors that are kept for backward, each as large as a weight.
_thread = threading.local()


def widened(weight: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    """The weight in a type; made anew, it is valid until this thread asks for the next."""
    if weight.dtype == dtype:
        return weight
    plain = weight.device.type == "cpu" and dtype == torch.float32 and not weight.requires_grad
    if not plain or type(weight.data) is not torch.Tensor or torch.compiler.is_compiling():
        return weight.to(dtype)
    room = getattr(_thread, "room", None)
    if room is None or room.numel() < weight.numel():
        room = _thread.room = torch.empty(weight.numel())
    return room[: weight.numel()].view_as(weight).copy_(weight)


class WidenedLinear(nn.Linear):
    """A frozen linear layer, whose weight is made as wide as its input for a product alone."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """[..., in] -> [..., out]."""
        return _WidenedProduct.apply(x, self.weight, self.bias)


class _WidenedProduct(torch.autograd.Function):
    """x W^T + bias; neither W nor bias learns. For backward W is kept as narrow as it is."""

    @staticmethod
    def forward(
        ctx: Any, x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None
    ) -> torch.Tensor:
        ctx.save_for_backward(weight)
        return F.linear(x, widened(weight, x.dtype), bias)

    @staticmethod
    def backward(ctx: Any, gradient: torch.Tensor) -> tuple[Any, ...]:
        (weight,) = ctx.saved_tensors
        wanted = ctx.needs_input_grad[0]
        return gradient @ widened(weight, gradient.dtype) if wanted else None, None, None
