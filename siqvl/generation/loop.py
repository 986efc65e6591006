"""The loop in which a model writes, token after token, with the KV cache.

What it costs more than the model's passes is little, which tells it apart from `generate` of
transformers: rows that have ended leave the batch, and nothing is done between two passes but
choosing the token. Greedily it writes the same tokens.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from transformers import DynamicCache

from siqvl.model.modeling import SiQVLForConditionalGeneration

#: Rows that have ended leave the batch once no more than this share of it goes on: each time costs
#: a copy of the cache.
KEPT_SHARE = 0.75


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
            tokens], padded on the left, and those for the pictures.
        end_ids: a completion ends with the first of these.
        samples: completions a prompt, which follow one another.
    """
    inputs = dict(batch)
    mask = inputs.pop("attention_mask")
    positions = (mask.cumsum(1) - 1).clamp(min=0)
    suppressed = model.generation_config.suppress_tokens or []
    ends = frozenset(end_ids)
    cache = DynamicCache(config=model.config.text_config)
    cached = {"past_key_values": cache, "use_cache": True, "logits_to_keep": 1}
    ids: list[list[int]] = [[] for _ in range(samples * len(mask))]
    ended = [False] * len(ids)
    rows = list(range(len(ids)))  # the completions that are in the batch
    with torch.inference_mode():
        for step in range(max_new_tokens):
            output = model(**inputs, attention_mask=mask, position_ids=positions, **cached)
            scores = output.logits[:, -1].float()
            scores[:, suppressed] = float("-inf")
            positions = positions[:, -1:] + 1
            if step == 0 and samples > 1:
                cache.batch_repeat_interleave(samples)
                scores, mask, positions = (
                    one.repeat_interleave(samples, 0) for one in (scores, mask, positions)
                )
            tokens = choose(scores, rows, step)
            for row, token in zip(rows, tokens.tolist(), strict=True):
                if not ended[row]:
                    ids[row].append(token)
                    ended[row] = token in ends
            going = [place for place, row in enumerate(rows) if not ended[row]]
            if not going:
                break
            if len(going) <= KEPT_SHARE * len(rows):
                kept = torch.tensor(going, device=mask.device)
                cache.batch_select_indices(kept)
                tokens, mask, positions = tokens[kept], mask[kept], positions[kept]
                rows = [rows[place] for place in going]
            mask = torch.cat([mask, mask.new_ones(len(rows), 1)], dim=1)
            inputs = {"input_ids": tokens[:, None]}
    return [Written(*one) for one in zip(ids, ended, strict=True)]
