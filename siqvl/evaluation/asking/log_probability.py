"""How likely a model finds given tokens."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from siqvl.data.collate import padded
from siqvl.data.encoded import IGNORED, Encoded
from siqvl.model.modeling import SiQVLForConditionalGeneration

#: Positions whose logits are held in memory at once: 622 MB with Qwen's 151,936 tokens.
POSITIONS = 1024


def log_probabilities(
    model: SiQVLForConditionalGeneration, sequences: Sequence[Encoded], **images: Any
) -> list[float]:
    """Sums log p(token | all before it), in nats, over the tokens of each sequence with a label.

    Logits are made for those tokens alone.

    Args:
        images: the model's argument for the pictures of all sequences, in order.
    """
    hidden = last_hidden_states(model, [one.input_ids for one in sequences], **images)
    labels = padded([one.labels for one in sequences], IGNORED)[:, 1:].to(hidden.device)
    learned = labels != IGNORED
    with torch.inference_mode():
        at, tokens = hidden[:, :-1][learned], labels[learned]
        found = [
            model.lm_head(at[start : start + POSITIONS])
            .float()
            .log_softmax(-1)
            .gather(1, tokens[start : start + POSITIONS, None])
            for start in range(0, len(tokens), POSITIONS)
        ]
        each = torch.cat(found)[:, 0].cpu().double()  # Apple's GPUs have no float64
        rows = learned.nonzero()[:, 0].cpu()
        sums = each.new_zeros(len(sequences)).index_add(0, rows, each)
    return sums.tolist()


def last_hidden_states(
    model: SiQVLForConditionalGeneration, ids: Sequence[list[int]], **images: Any
) -> torch.Tensor:
    """Gives [batch, tokens, hidden] of rows, which are padded on the right."""
    filler = int(model.config.image_token_id == 0)  # any token that is no picture: it is masked
    with torch.inference_mode():
        return model.model(
            input_ids=padded(ids, filler).to(model.device),
            attention_mask=padded([[1] * len(row) for row in ids], 0).to(model.device),
            use_cache=False,
            **images,
        ).last_hidden_state
