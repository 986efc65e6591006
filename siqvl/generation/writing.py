"""Completions in the making, each at a place of its own, which the next one takes when it ends."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NamedTuple

import torch

from siqvl.generation.beginnings import Encode, Prompt, passes
from siqvl.generation.choose import Choose
from siqvl.generation.decoder import Decoder
from siqvl.model.modeling import SiQVLForConditionalGeneration


class Token(NamedTuple):
    """One more token of a completion."""

    row: int  # number of the completion
    id: int
    last: bool  # by its being an end token, or the limit


class Writing:
    """Rows that a model writes side by side.

    Args:
        places: rows at once.
        end_ids: a completion ends with the first of these.
        choose: gets the numbers under which completions were admitted.
    """

    def __init__(
        self,
        model: SiQVLForConditionalGeneration,
        places: int,
        *,
        end_ids: Sequence[int],
        choose: Choose,
    ) -> None:
        self.places = places
        self._decoder = Decoder(model, places)
        self._suppressed = model.generation_config.suppress_tokens or []
        self._ends = frozenset(end_ids)
        self._choose = choose
        self._device = model.device
        self._rows: list[int] = []  # the completion at each place
        self._steps: list[int] = []  # tokens it has
        self._limits: list[int] = []
        self._lengths: list[int] = []  # tokens of the cache's row
        self._last = torch.zeros(0, dtype=torch.long, device=self._device)

    def __len__(self) -> int:
        """Completions in the making."""
        return len(self._rows)

    @property
    def free(self) -> int:
        return self.places - len(self)

    def admit(
        self,
        prompts: Sequence[Prompt],
        encode: Encode,
        *,
        numbers: Sequence[int],
        limits: Sequence[int],
        samples: int = 1,
    ) -> list[Token]:
        """Takes prompts up, and chooses the first token of each completion.

        Args:
            prompts: not more than there is room for; pictures and prompts are read once for all
                samples.
            numbers: of the completions, by which they are told apart.
            limits: tokens at most of each prompt's completions.
            samples: completions a prompt, which follow one another.
        """
        start, count = len(self), len(prompts)
        scores = torch.cat(
            [
                self._decoder.read(prompts[one.start : one.stop], encode, start + one.start)
                for one in passes(prompts, self._device)
            ]
        )
        lengths = [len(prompt.ids) for prompt in prompts for _ in range(samples)]
        if samples > 1:
            of_prompts = torch.arange(count, device=self._device).repeat_interleave(samples)
            targets = torch.arange(len(lengths), device=self._device)
            self._decoder.move(start + of_prompts, start + targets)
            scores = scores[of_prompts]
        self._rows += numbers
        self._steps += [0] * len(lengths)
        self._limits += [limit for limit in limits for _ in range(samples)]
        self._lengths += lengths
        return self._chosen(scores, start)

    def step(self) -> list[Token]:
        """Writes one more token of every completion."""
        self._lengths = [length + 1 for length in self._lengths]
        return self._chosen(self._decoder.step(self._last, max(self._lengths)), 0)

    def drop(self, rows: Iterable[int]) -> None:
        """Ends completions, named by their numbers, wherever they are."""
        gone = frozenset(rows)
        self._let_go([place for place, row in enumerate(self._rows) if row in gone])

    def _chosen(self, scores: torch.Tensor, start: int) -> list[Token]:
        """Chooses for all rows from place `start` on; those that end give their places up."""
        scores = scores.float()
        if self._suppressed:
            scores[:, self._suppressed] = float("-inf")
        rows, steps = self._rows[start:], self._steps[start:]
        chosen = self._choose(scores, rows, steps)
        self._last = torch.cat([self._last[:start], chosen])
        told = []
        for place, (row, token) in enumerate(zip(rows, chosen.tolist(), strict=True), start):
            self._steps[place] += 1
            last = token in self._ends or self._steps[place] == self._limits[place]
            told.append(Token(row, token, last))
        self._let_go([start + place for place, one in enumerate(told) if one.last])
        return told

    def _let_go(self, ended: list[int]) -> None:
        """Lets the last rows take the places of those that have ended."""
        if not ended:
            return
        gone, left = set(ended), len(self) - len(ended)
        free = [place for place in ended if place < left]
        last = [place for place in range(left, len(self)) if place not in gone]
        if free:
            source, target = torch.tensor([last, free], device=self._device)
            self._decoder.move(source, target)
            self._last[target] = self._last[source]
        for about in (self._rows, self._steps, self._limits, self._lengths):
            for place, other in zip(free, last, strict=True):
                about[place] = about[other]
            del about[left:]
        self._last = self._last[:left]
