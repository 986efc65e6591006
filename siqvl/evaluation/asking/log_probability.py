"""How likely a model finds given tokens."""

from __future__ import annotations

from collections.abc import Hashable
from typing import NamedTuple

import torch

from siqvl.data.collate import padded
from siqvl.data.encoded import IGNORED, Encoded
from siqvl.generation.beginnings import Encode, Prompt, after_pictures, passes
from siqvl.generation.reading import Reader
from siqvl.model.modeling import SiQVLForConditionalGeneration

#: Positions whose logits are held in memory at once: 622 MB with Qwen's 151,936 tokens.
POSITIONS = 1024


class Sequence(NamedTuple):
    """What is judged.

    Attributes:
        encoded: tokens; those with a label count.
        pictures: names of its pictures.
        shared: tokens at the beginning that others may have too, which are read once and of which
            none counts.
    """

    encoded: Encoded
    pictures: tuple[Hashable, ...]
    shared: int


def log_probabilities(
    model: SiQVLForConditionalGeneration, sequences: list[Sequence], encode: Encode
) -> list[float]:
    """Sums log p(token | all before it), in nats, over the tokens of each sequence that count.

    Logits are made for those tokens alone.

    Args:
        encode: gives the tokens of pictures by their names.
    """
    token = model.config.image_token_id
    prompts = [_prompt(one, token) for one in sequences]
    reader, found = Reader(model), list[float]()
    for some in passes(prompts, model.device):
        part = slice(some.start, some.stop)
        with torch.inference_mode():
            hidden, starts = reader.states(prompts[part], encode)
            found += _sums(model, hidden, starts, sequences[part])
    return found


def _sums(
    model: SiQVLForConditionalGeneration,
    hidden: torch.Tensor,
    starts: list[int],
    sequences: list[Sequence],
) -> list[float]:
    """What `log_probabilities` gives, from states [sequences, tokens, hidden] after `starts`."""
    own = [
        [IGNORED] * (one.shared - start - 1) + one.encoded.labels[max(one.shared, start + 1) :]
        for one, start in zip(sequences, starts, strict=True)
    ]
    labels = padded(own, IGNORED).to(hidden.device)
    learned = labels != IGNORED
    at, tokens = hidden[:, : labels.shape[1]][learned], labels[learned]
    log_probs = [
        model.lm_head(at[start : start + POSITIONS])
        .float()
        .log_softmax(-1)
        .gather(1, tokens[start : start + POSITIONS, None])
        for start in range(0, len(tokens), POSITIONS)
    ]
    each = torch.cat(log_probs)[:, 0].cpu().double()  # Apple's GPUs have no float64
    rows = learned.nonzero()[:, 0].cpu()
    return each.new_zeros(len(sequences)).index_add(0, rows, each).tolist()


def _prompt(one: Sequence, image_token: int) -> Prompt:
    """Reads the last shared token with the others: what is found there scores the next."""
    ids, shared = one.encoded.input_ids, max(one.shared - 1, 0)
    if after_pictures(ids, image_token) > shared:
        shared = 0
    return Prompt(ids, one.pictures, shared)
