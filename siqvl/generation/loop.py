"""The loop in which a model writes, token after token, with the KV cache.

What it costs more than arithmetic is little, which tells it apart from `generate` of transformers:
rows that have ended leave the batch, a pass is the layers alone (`decoder.py`), and nothing is done
between two passes but choosing the token. Greedily it writes the same tokens.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch

from siqvl.generation.decoder import Decoder
from siqvl.model.modeling import SiQVLForConditionalGeneration


class Written(NamedTuple):
    """The tokens of one completion."""

    ids: list[int]  # with the end token, if it came to one
    ended: bool  # by an end token, not by the limit of tokens


#: Takes scores [rows, vocabulary], the number of each row's completion, and how many tokens it has;
#: gives the next token of each [rows].
Choose = Callable[[torch.Tensor, list[int], int], torch.Tensor]


def likeliest(scores: torch.Tensor, rows: list[int], step: int) -> torch.Tensor:
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

    def __call__(self, scores: torch.Tensor, rows: list[int], step: int) -> torch.Tensor:
        return pick(scores, self.uniform[rows, step].to(scores.device), self.temperature)


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
    batch: dict[str, Any],
    *,
    max_new_tokens: int,
    end_ids: Sequence[int],
    samples: int = 1,
    choose: Choose = likeliest,
) -> list[Written]:
    """Writes completions of prompts; tokens that the generation config suppresses are never chosen.

    Prompts and pictures pass through the model once for all samples of a prompt.

    Args:
        batch: the model's arguments on its device: `input_ids` and `attention_mask` [prompts,
            tokens], padded on the right, and those for the pictures.
        end_ids: a completion ends with the first of these.
        samples: completions a prompt, which follow one another.
    """
    inputs = dict(batch)
    lengths = inputs.pop("attention_mask").sum(1)
    suppressed = model.generation_config.suppress_tokens or []
    ends = frozenset(end_ids)
    ids: list[list[int]] = [[] for _ in range(samples * len(lengths))]
    ended = [False] * len(ids)
    rows = list(range(len(ids)))  # the completion at each place of the cache
    with torch.inference_mode():
        longest = int(lengths.max())
        decoder = Decoder(model, len(ids), longest + max_new_tokens - 1)
        scores = decoder.begin(inputs, lengths)
        if samples > 1:
            places = torch.arange(len(lengths), device=lengths.device).repeat_interleave(samples)
            decoder.move(places, torch.arange(len(ids), device=lengths.device))
            scores = scores[places]
        for step in range(max_new_tokens):
            scores = scores.float()
            scores[:, suppressed] = float("-inf")
            tokens = choose(scores, rows, step)
            for row, token in zip(rows, tokens.tolist(), strict=True):
                ids[row].append(token)
                ended[row] = token in ends
            kept = _without_ended(decoder, rows, ended)
            if not rows or step + 1 == max_new_tokens:
                break
            scores = decoder.step(tokens[kept], longest + step + 1)
    return [Written(*one) for one in zip(ids, ended, strict=True)]


def _without_ended(decoder: Decoder, rows: list[int], ended: list[bool]) -> list[int]:
    """Lets the last rows take the places of those that have ended; where each came from."""
    order = list(range(len(rows)))
    going = [place for place in order if not ended[rows[place]]]
    free = [place for place in order[: len(going)] if ended[rows[place]]]
    last = going[len(going) - len(free) :]
    if free:
        device = decoder.lengths.device
        decoder.move(torch.tensor(last, device=device), torch.tensor(free, device=device))
    for place, source in zip(free, last, strict=True):
        rows[place] = rows[source]
        order[place] = source
    del rows[len(going) :]
    return order[: len(going)]
