"""Losses over preference pairs: pure functions of log-probabilities, as TRL 1.16 has them.

r = log p(y|x) - log p_reference(y|x) of a completion y, summed over its tokens, in nats.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch.nn.functional import logsigmoid

from siqvl.recipe import PreferenceLoss


@dataclass(frozen=True)
class Pairs:
    """Both completions of some pairs, float [pairs] each: log-probabilities in nats, summed over a
    completion's tokens, those of the reference, and how many tokens there are."""

    chosen: torch.Tensor
    rejected: torch.Tensor
    ref_chosen: torch.Tensor
    ref_rejected: torch.Tensor
    chosen_tokens: torch.Tensor
    rejected_tokens: torch.Tensor

    @classmethod
    def of(
        cls,
        sums: torch.Tensor,
        ref_chosen: torch.Tensor,
        ref_rejected: torch.Tensor,
        tokens: Sequence[int],
    ) -> Pairs:
        """From `sums` [2 * pairs] and `tokens` of chosen, rejected, pair after pair."""
        counts = sums.new_tensor(tokens)
        return cls(sums[::2], sums[1::2], ref_chosen, ref_rejected, counts[::2], counts[1::2])

    @property
    def chosen_ratios(self) -> torch.Tensor:
        """r of the chosen completions; times beta, DPO's rewards."""
        return self.chosen - self.ref_chosen

    @property
    def rejected_ratios(self) -> torch.Tensor:
        """r of the rejected completions."""
        return self.rejected - self.ref_rejected

    @property
    def margins(self) -> torch.Tensor:
        """r of the chosen completion above that of the rejected one."""
        return self.chosen_ratios - self.rejected_ratios


def sigmoid(pairs: Pairs, beta: float) -> torch.Tensor:
    """DPO, eq. 7 of Rafailov et al. 2023 (arXiv:2305.18290); ln 2 where nothing is learnt yet."""
    return -logsigmoid(beta * pairs.margins)


def ipo(pairs: Pairs, beta: float) -> torch.Tensor:
    """IPO, eq. 17 of Azar et al. 2023 (arXiv:2310.12036), beta in place of its tau.

    With r as a mean over a completion's tokens, not a sum, so that the target 1 / (2 beta) asks the
    same of short and long pairs. The paper does not say so; TRL has it from its authors.
    """
    chosen = pairs.chosen_ratios / pairs.chosen_tokens.clamp(min=1)
    rejected = pairs.rejected_ratios / pairs.rejected_tokens.clamp(min=1)
    return (chosen - rejected - 1 / (2 * beta)) ** 2


def hinge(pairs: Pairs, beta: float) -> torch.Tensor:
    """The ranking loss of SLiC-HF, Zhao et al. 2023 (arXiv:2305.10425), on DPO's rewards and with a
    margin of 1."""
    return (1 - beta * pairs.margins).relu()


def bco_pair(pairs: Pairs, beta: float) -> torch.Tensor:
    """BCO, Jung et al. 2024 (arXiv:2404.04656): each completion classified by itself.

    As in TRL without the paper's reward shift, a running mean of rewards. MPO (Wang et al. 2024,
    arXiv:2411.10442) adds such a term to `sigmoid` and `sft`.
    """
    return -logsigmoid(beta * pairs.chosen_ratios) - logsigmoid(-beta * pairs.rejected_ratios)


LOSSES: dict[PreferenceLoss, Callable[[Pairs, float], torch.Tensor]] = {
    "sigmoid": sigmoid,
    "ipo": ipo,
    "hinge": hinge,
    "bco_pair": bco_pair,
}


def preference_loss(
    pairs: Pairs,
    weights: Mapping[PreferenceLoss, float],
    beta: float,
    *,
    pairs_in_step: torch.Tensor | float | None = None,
    tokens_in_step: torch.Tensor | float | None = None,
) -> torch.Tensor:
    """What these pairs add to the loss of an optimizer step, a scalar.

    A step's loss is a mean over its pairs; the part of `sft`, the negative log-likelihood of chosen
    completions (Pang et al. 2024, arXiv:2404.19733), is a mean over all of their tokens, so that
    long completions count for more. MPO is {sigmoid: 0.8, bco_pair: 0.2, sft: 1.0}.

    Args:
        weights: of the losses that are added up.
        beta: how much a change against the reference counts.
        pairs_in_step: pairs of the whole step, over all batches and processes; None: these alone.
        tokens_in_step: tokens of their chosen completions; None: those of these pairs.
    """
    if pairs_in_step is None:
        pairs_in_step = len(pairs.chosen)
    if tokens_in_step is None:
        tokens_in_step = pairs.chosen_tokens.sum()
    total = pairs.chosen.new_zeros(())
    for name, weight in weights.items():
        if name == "sft":
            total = total - weight * pairs.chosen.sum() / tokens_in_step
        else:
            total = total + weight * LOSSES[name](pairs, beta).sum() / pairs_in_step
    return total
