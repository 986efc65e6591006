"""Which token comes next: the likeliest, or one drawn at random."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch

#: Takes scores [rows, vocabulary], the number of each row's completion, and how many tokens that
#: has; gives the next token of each, [rows].
Choose = Callable[[torch.Tensor, Sequence[int], Sequence[int]], torch.Tensor]


def likeliest(scores: torch.Tensor, rows: Sequence[int], steps: Sequence[int]) -> torch.Tensor:
    """Chooses the likeliest token of each row."""
    return scores.argmax(-1)


@dataclass(frozen=True)
class Drawn:
    """Chooses at random, each token as often as it is likely at the temperature.

    Every completion has random numbers of its own and takes one a token, so that what is drawn does
    not depend on what shares the batch, but for rounding in the model's scores.

    Attributes:
        uniform: [completions, new tokens at most], numbers in [0, 1).
    """

    uniform: torch.Tensor
    temperature: float

    def __call__(
        self, scores: torch.Tensor, rows: Sequence[int], steps: Sequence[int]
    ) -> torch.Tensor:
        return pick(scores, self.uniform[rows, steps].to(scores.device), self.temperature)


def pick(scores: torch.Tensor, uniform: torch.Tensor, temperature: float) -> torch.Tensor:
    """Draws a token [rows] from softmax(scores / temperature) by inverting its distribution.

    It is the token at which the cumulated probabilities pass the random number.

    Args:
        scores: [rows, vocabulary], logits.
        uniform: [rows], numbers in [0, 1).
    """
    exact = torch.float32 if scores.device.type == "mps" else torch.float64  # mps has no float64
    cumulated = torch.softmax(scores.to(exact) / temperature, dim=-1).cumsum(dim=-1)
    # the last one is 1 but for rounding, above which no number may lie
    wanted = uniform.to(exact)[:, None] * cumulated[:, -1:]
    found = torch.searchsorted(cumulated, wanted, right=True).squeeze(1)
    return found.clamp(max=scores.shape[1] - 1)
