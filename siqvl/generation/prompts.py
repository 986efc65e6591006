"""Prompts on their way through the model: each beginning that several share is read once."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from typing import Any, NamedTuple

import torch
from transformers import DynamicCache

from siqvl.data.collate import padded
from siqvl.model.modeling import SiQVLForConditionalGeneration

#: Two passes cost more than one unless they save at least this share of the tokens.
WORTH = 0.15


class Prompt(NamedTuple):
    """Tokens, and the pictures they speak of.

    Attributes:
        pictures: their names in reading order; equal names are equal pictures.
        shared: tokens at the beginning that others may share, the picture tokens among them.
    """

    ids: Sequence[int]
    pictures: tuple[Hashable, ...] = ()
    shared: int = 0

    @property
    def beginning(self) -> Hashable:
        return tuple(self.ids[: self.shared]), self.pictures


#: Names of pictures -> the model's argument for them; empty without pictures.
Encode = Callable[[Sequence[Hashable]], dict[str, Any]]


class Read(NamedTuple):
    """What the model made of some prompts.

    Attributes:
        hidden: [prompts, tokens, hidden], of each prompt's own tokens after `starts`, padded on the
            right.
        starts: [prompts], tokens at the beginning that have no hidden state here.
        cache: keys and values of all tokens.
        columns: [prompts, tokens], where in the cache the token at each position stands; None: at
            its position.
    """

    hidden: torch.Tensor
    starts: torch.Tensor
    cache: DynamicCache | None
    columns: torch.Tensor | None


def after_pictures(ids: Sequence[int], image_token: int) -> int:
    """Counts the tokens up to the last picture's, which prompts about one picture may share."""
    for place in range(len(ids), 0, -1):
        if ids[place - 1] == image_token:
            return place
    return 0


def read(
    model: SiQVLForConditionalGeneration,
    prompts: Sequence[Prompt],
    encode: Encode,
    *,
    keep: bool = True,
) -> Read:
    """Passes prompts through the model without its head.

    Args:
        keep: whether keys and values are wanted.
    """
    numbers: dict[Hashable, int] = {}
    owners = [numbers.setdefault(prompt.beginning, len(numbers)) for prompt in prompts]
    first = [owners.index(number) for number in range(len(numbers))]
    tokens = sum(len(prompt.ids) for prompt in prompts)
    saved = sum(p.shared for p in prompts) - sum(prompts[number].shared for number in first)
    if saved < WORTH * tokens or min(prompt.shared for prompt in prompts) == 0:
        return _read_whole(model, prompts, encode, keep=keep)
    return _read_shared(model, prompts, [prompts[number] for number in first], owners, encode)


def _read_whole(
    model: SiQVLForConditionalGeneration,
    prompts: Sequence[Prompt],
    encode: Encode,
    *,
    keep: bool,
) -> Read:
    device = model.device
    cache = DynamicCache() if keep else None
    ids = [prompt.ids for prompt in prompts]
    hidden = model.model(
        input_ids=padded(ids, _filler(model)).to(device),
        attention_mask=padded([[1] * len(row) for row in ids], 0).to(device),
        past_key_values=cache,
        use_cache=keep,
        **encode([name for prompt in prompts for name in prompt.pictures]),
    )[0]
    starts = torch.zeros(len(ids), dtype=torch.long, device=device)
    return Read(hidden, starts, cache, None)


def _read_shared(
    model: SiQVLForConditionalGeneration,
    prompts: Sequence[Prompt],
    first: Sequence[Prompt],
    owners: Sequence[int],
    encode: Encode,
) -> Read:
    """Reads the beginnings, hands each to the prompts that share it, and reads on from there."""
    device = model.device
    beginnings = [Prompt(one.ids[: one.shared], one.pictures) for one in first]
    cache = _read_whole(model, beginnings, encode, keep=True).cache
    assert cache is not None
    owner = torch.tensor(owners, device=device)
    cache.batch_select_indices(owner)
    starts = torch.tensor([prompt.shared for prompt in prompts], device=device)
    own = [prompt.ids[prompt.shared :] for prompt in prompts]
    before = max(one.shared for one in first)
    places = torch.arange(before, device=device)
    positions = starts[:, None] + torch.arange(max(map(len, own)), device=device)
    hidden = model.model.language_model(
        input_ids=padded(own, _filler(model)).to(device),
        attention_mask=torch.cat(
            [
                (places < starts[:, None]).long(),
                padded([[1] * len(row) for row in own], 0).to(device),
            ],
            dim=1,
        ),
        position_ids=positions,
        past_key_values=cache,
        use_cache=True,
    )[0]
    tokens = torch.arange(max(len(prompt.ids) for prompt in prompts), device=device)
    # between a beginning and what follows it, the cache has room for the longest beginning
    columns = torch.where(tokens < starts[:, None], tokens, tokens + before - starts[:, None])
    last = before + positions.shape[1] - 1
    return Read(hidden, starts, cache, columns.clamp(max=last))


def _filler(model: SiQVLForConditionalGeneration) -> int:
    """Any token that is no picture: it is masked."""
    return int(model.config.image_token_id == 0)
