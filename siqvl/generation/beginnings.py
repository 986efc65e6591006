"""Prompts as a model reads them, and which of them begin alike."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from typing import NamedTuple

import torch

#: Two passes cost more than one unless they save at least this share of the tokens.
WORTH = 0.15

#: Tokens, padding included, of one pass over prompts: it bounds the memory that a pass takes, and
#: on a CPU what it makes stays near the cores.
PASS_TOKENS = 16_384
PASS_TOKENS_OF_CPU = 2_048

#: Names of pictures -> their tokens, [pictures, tokens a picture, hidden].
Encode = Callable[[Sequence[Hashable]], torch.Tensor]


class Prompt(NamedTuple):
    """Tokens, and the pictures they speak of.

    Attributes:
        pictures: their names in reading order; equal names are equal pictures.
        shared: tokens at the beginning that others may share, all picture tokens among them.
    """

    ids: Sequence[int]
    pictures: tuple[Hashable, ...] = ()
    shared: int = 0

    @classmethod
    def asked(cls, ids: Sequence[int], pictures: tuple[Hashable, ...], image_token: int) -> Prompt:
        """Takes a prompt whose beginning, up to its last picture, others may share."""
        return cls(ids, pictures, after_pictures(ids, image_token))

    @property
    def beginning(self) -> Hashable:
        return tuple(self.ids[: self.shared]), self.pictures


def after_pictures(ids: Sequence[int], image_token: int) -> int:
    """Counts the tokens up to the last picture's, which prompts about one picture may share."""
    for place in range(len(ids), 0, -1):
        if ids[place - 1] == image_token:
            return place
    return 0


def beginnings(prompts: Sequence[Prompt]) -> tuple[list[Prompt], list[int]]:
    """Finds what prompts begin with together.

    Returns:
        One prompt for each different beginning, and for each prompt the number of its own among
        these; both empty where reading them apart would save too little.
    """
    numbers: dict[Hashable, int] = {}
    owners = [numbers.setdefault(prompt.beginning, len(numbers)) for prompt in prompts]
    first: dict[int, Prompt] = {}
    for owner, prompt in zip(owners, prompts, strict=True):
        first.setdefault(owner, prompt)
    tokens = sum(len(prompt.ids) for prompt in prompts)
    once = sum(prompt.shared for prompt in first.values())
    saved = sum(prompt.shared for prompt in prompts) - once
    if saved < WORTH * tokens or not all(prompt.shared for prompt in prompts):
        return [], []
    return list(first.values()), owners


def passes(prompts: Sequence[Prompt], device: torch.device) -> list[range]:
    """Divides prompts into those that are read together: neighbours, as many as fit."""
    most = PASS_TOKENS_OF_CPU if device.type == "cpu" else PASS_TOKENS
    found, start, longest = [], 0, 0
    for number, prompt in enumerate(prompts):
        longest = max(longest, len(prompt.ids))
        if number > start and longest * (number + 1 - start) > most:
            found.append(range(start, number))
            start, longest = number, len(prompt.ids)
    return [*found, range(start, len(prompts))]
