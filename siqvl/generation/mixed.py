"""Next tokens of requests that each want them chosen in their own way."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from siqvl.generation.choose import pick
from siqvl.generation.request import Sampling, TokenLogprob
from siqvl.generation.sampling import random_numbers


class Mixed:
    """Chooses for every completion as its request says.

    Attributes:
        logprobs: of the tokens chosen last, by completion, where they were asked for.
    """

    def __init__(self) -> None:
        self.logprobs: dict[int, TokenLogprob] = {}
        self._sampling: dict[int, Sampling] = {}
        self._uniform: dict[int, list[float]] = {}

    def add(self, row: int, sampling: Sampling) -> None:
        """Takes a completion up, whose tokens are chosen by this."""
        self._sampling[row] = sampling
        if sampling.temperature:
            self._uniform[row] = random_numbers(
                sampling.seed, "", sampling.number, sampling.max_new_tokens
            )

    def remove(self, row: int) -> None:
        """Forgets a completion that has ended."""
        self._sampling.pop(row, None)
        self._uniform.pop(row, None)
        self.logprobs.pop(row, None)

    def __call__(
        self, scores: torch.Tensor, rows: Sequence[int], steps: Sequence[int]
    ) -> torch.Tensor:
        """Gives the next token of each row, as `siqvl.generation.choose.Choose` says."""
        chosen = scores.argmax(-1)
        drawn = [place for place, row in enumerate(rows) if row in self._uniform]
        if drawn:
            chosen[drawn] = self._draw(scores[drawn], [(rows[at], steps[at]) for at in drawn])
        for place, row in enumerate(rows):
            most = self._sampling[row].top_logprobs
            if most is not None:
                self.logprobs[row] = _logprob(scores[place], int(chosen[place]), most)
        return chosen

    def _draw(self, scores: torch.Tensor, at: list[tuple[int, int]]) -> torch.Tensor:
        uniform = torch.tensor([self._uniform[row][step] for row, step in at])
        said = [self._sampling[row] for row, _ in at]
        temperature = scores.new_tensor([one.temperature for one in said])[:, None]
        top_p = scores.new_tensor([one.top_p for one in said])[:, None]
        # below the largest, so that no temperature makes infinities of them all
        scores = (scores - scores.amax(-1, keepdim=True)) / temperature
        scores = likeliest_alone(scores, top_p)
        return pick(scores, uniform.to(scores.device), temperature=1.0)


def likeliest_alone(scores: torch.Tensor, top_p: torch.Tensor) -> torch.Tensor:
    """Keeps the likeliest tokens that together have a probability of `top_p`, at least one.

    Args:
        scores: [rows, vocabulary], logits.
        top_p: [rows, 1]; 1 keeps all.

    Returns:
        As `scores`, with minus infinity for all others.
    """
    if bool((top_p >= 1).all()):
        return scores
    ordered, tokens = scores.sort(dim=-1, descending=True)
    shares = ordered.softmax(-1)
    before = shares.cumsum(-1) - shares
    gone = (before >= top_p) & (top_p < 1)
    gone[:, 0] = False
    return scores.masked_fill(torch.zeros_like(gone).scatter(1, tokens, gone), float("-inf"))


def _logprob(scores: torch.Tensor, chosen: int, most: int) -> TokenLogprob:
    """What a row of logits, [vocabulary], says of its token and of the likeliest ones."""
    logprobs = scores.log_softmax(-1)
    values, tokens = logprobs.topk(min(most, len(logprobs)))
    top = list(zip(tokens.tolist(), values.tolist(), strict=True))
    return TokenLogprob(chosen, float(logprobs[chosen]), top)
