"""Log-probabilities of given tokens straight from hidden states: no logits where none are needed.

With Qwen's vocabulary of 151,936 the logits are the largest tensor of a training step by far, and
only answer tokens need any. Here they are made for those tokens alone, a chunk at a time, as in
Wijmans et al. 2024 (arXiv:2411.09009) and Liger-Kernel (arXiv:2410.10989), in plain PyTorch.

This file travels inside every checkpoint with its neighbours, so it imports nothing of siqvl.
"""

from typing import Any

import torch


def token_log_probs(
    hidden: torch.Tensor, weight: torch.Tensor, targets: torch.Tensor, chunk: int
) -> torch.Tensor:
    """log p(target) at each position, in nats, differentiable in `hidden` and `weight`.

    Equal to `log_softmax(hidden @ weight.T)[targets]` in float32 (float64 for such inputs); under
    autocast the products are computed in its precision, as those of a Linear are.

    Args:
        hidden: [positions, hidden size].
        weight: [vocabulary, hidden size], the head's.
        targets: [positions], int64.
        chunk: positions whose logits are in memory at once. Those of the last chunk stay there
            until the backward pass, where all others are computed a second time; so a batch that
            fits into one chunk computes nothing twice.

    Returns:
        [positions], float32 (or float64).
    """
    device = hidden.device.type
    autocast = torch.is_autocast_enabled(device)
    dtype = torch.get_autocast_dtype(device) if autocast else hidden.dtype
    with torch.autocast(device, enabled=False):
        return _TokenLogProbs.apply(hidden.to(dtype), weight, targets, chunk)


class _TokenLogProbs(torch.autograd.Function):
    """log p = (logit of target - greatest logit) - log(sum of exp(logit - greatest logit))."""

    @staticmethod
    def forward(
        ctx: Any, hidden: torch.Tensor, weight: torch.Tensor, targets: torch.Tensor, chunk: int
    ) -> torch.Tensor:
        wanted = ctx.needs_input_grad[0] or ctx.needs_input_grad[1]
        ctx.weight_dtype, weight = weight.dtype, weight.to(hidden.dtype)
        precision = torch.promote_types(hidden.dtype, torch.float32)
        log_probs = torch.empty(len(targets), dtype=precision, device=hidden.device)
        sums = torch.empty_like(log_probs)
        kept = None
        for start in range(0, len(targets), chunk):
            part = slice(start, start + chunk)
            exponentials, log_probs[part], sums[part] = _exponentials(
                hidden[part], weight, targets[part]
            )
            if wanted and start + chunk >= len(targets):
                kept = exponentials.to(hidden.dtype)
            del exponentials  # before those of the next chunk are made
        ctx.save_for_backward(hidden, weight, targets, sums)
        ctx.chunk, ctx.kept = chunk, kept
        return log_probs

    @staticmethod
    def backward(ctx: Any, gradient: torch.Tensor) -> tuple[Any, ...]:
        hidden, weight, targets, sums = ctx.saved_tensors
        needs_hidden, needs_weight = ctx.needs_input_grad[:2]
        grad_hidden = torch.empty_like(hidden) if needs_hidden else None
        grad_weight: torch.Tensor | None = None
        kept, ctx.kept = ctx.kept, None  # used up in place; a second backward computes it anew
        # the last chunk first: its exponentials are there, and leave before others are made
        for start in reversed(range(0, len(targets), ctx.chunk)):
            part = slice(start, start + ctx.chunk)
            if kept is None:
                kept = _exponentials(hidden[part], weight, targets[part])[0].to(hidden.dtype)
            # d log p / d logits = one-hot of the target - softmax
            factor = gradient[part]
            of_logits = kept.mul_(-(factor / sums[part]).to(kept.dtype).unsqueeze(1))
            of_logits.scatter_add_(
                1, targets[part].unsqueeze(1), factor.to(kept.dtype).unsqueeze(1)
            )
            kept = None
            if grad_hidden is not None:
                grad_hidden[part] = of_logits @ weight
            if needs_weight:
                if grad_weight is None:
                    grad_weight = (of_logits.T @ hidden[part]).to(ctx.weight_dtype)
                elif grad_weight.dtype == hidden.dtype:  # no second table in memory
                    grad_weight.addmm_(of_logits.T, hidden[part])
                else:  # summed in the weight's own precision, not in that of the products
                    grad_weight.add_(of_logits.T @ hidden[part])
            del of_logits
        if needs_weight and grad_weight is None:  # no position at all
            grad_weight = torch.zeros_like(weight, dtype=ctx.weight_dtype)
        return grad_hidden, grad_weight, None, None


def _exponentials(
    hidden: torch.Tensor, weight: torch.Tensor, targets: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """exp(logit - greatest) [positions, vocabulary], log-probabilities and sums [positions].

    One buffer of that size is alive at a time (two while 16-bit logits are widened).
    """
    logits = (hidden @ weight.T).to(torch.promote_types(hidden.dtype, torch.float32))
    greatest = logits.amax(1, keepdim=True)
    of_target = logits.gather(1, targets.unsqueeze(1)) - greatest
    exponentials = logits.sub_(greatest).exp_()
    sums = exponentials.sum(1)
    return exponentials, of_target.squeeze(1) - sums.log(), sums
