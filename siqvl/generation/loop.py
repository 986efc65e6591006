"""The loop in which a model writes, token after token, with the KV cache.

What it costs more than arithmetic is little, which tells it apart from `generate` of transformers:
a completion that has ended gives its place to the next prompt, a beginning that several prompts
share is read once, a pass is the layers alone (`decoder.py`), and nothing is done between two
passes but choosing the token. Greedily it writes the same tokens.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import torch

from siqvl.generation.beginnings import Encode, Prompt
from siqvl.generation.choose import Choose, likeliest
from siqvl.generation.writing import Token, Writing
from siqvl.model.modeling import SiQVLForConditionalGeneration

#: Prompts are taken up when this share of the places is free: a pass over few is a slow one.
REFILL = 0.25


class Written(NamedTuple):
    """The tokens of one completion."""

    ids: list[int]  # with the end token, if it came to one
    ended: bool  # by an end token, not by the limit of tokens


def end_ids(model: SiQVLForConditionalGeneration, otherwise: int | None = None) -> list[int]:
    """Names the tokens at which the model stops, by its generation config.

    Args:
        otherwise: the tokenizer's end token, where the config names none.
    """
    known = model.generation_config.eos_token_id
    known = otherwise if known is None else known
    return [known] if isinstance(known, int) else list(known or [])


def write(
    model: SiQVLForConditionalGeneration,
    prompts: Sequence[Prompt],
    encode: Encode,
    *,
    places: int,
    max_new_tokens: int | Sequence[int],
    end_ids: Sequence[int],
    samples: int = 1,
    choose: Choose = likeliest,
) -> Iterator[tuple[int, Written]]:
    """Writes completions of prompts; tokens that the generation config suppresses are never chosen.

    What is written follows from the prompts, their order, and `places`.

    Args:
        encode: makes the model's argument for the pictures that prompts name.
        places: completions at once; with more `samples` than that, those of one prompt.
        max_new_tokens: of a completion at most, for all prompts or for each.
        end_ids: a completion ends with the first of these.
        samples: completions a prompt, which follow one another.

    Yields:
        The number of a completion and what it is, as it ends: those of prompt n are
        n * samples, n * samples + 1, ….
    """
    at_once = max(1, places // samples)  # prompts
    writing = Writing(model, at_once * samples, end_ids=end_ids, choose=choose)
    ends = frozenset(end_ids)
    limits = max_new_tokens
    if isinstance(limits, int):
        limits = [limits] * len(prompts)
    unfinished: dict[int, list[int]] = {}
    taken = 0

    def ended(tokens: Sequence[Token]) -> Iterator[tuple[int, Written]]:
        for one in tokens:
            unfinished.setdefault(one.row, []).append(one.id)
            if one.last:
                yield one.row, Written(unfinished.pop(one.row), one.id in ends)

    while taken < len(prompts) or len(writing):
        free = writing.free // samples
        few = free < REFILL * at_once
        with torch.inference_mode():
            if taken < len(prompts) and not few:
                some = prompts[taken : taken + free]
                tokens = writing.admit(
                    some,
                    encode,
                    numbers=range(taken * samples, (taken + len(some)) * samples),
                    limits=limits[taken : taken + free],
                    samples=samples,
                )
                taken += len(some)
            else:
                tokens = writing.step()
        yield from ended(tokens)
