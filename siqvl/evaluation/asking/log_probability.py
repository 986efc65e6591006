"""How likely a model finds given tokens."""

from __future__ import annotations

from collections.abc import Hashable, Sequence

import torch

from siqvl.data.collate import padded
from siqvl.data.encoded import IGNORED, Encoded
from siqvl.generation.prompts import Encode, Prompt, after_pictures, read
from siqvl.model.modeling import SiQVLForConditionalGeneration

#: Positions whose logits are held in memory at once: 622 MB with Qwen's 151,936 tokens.
POSITIONS = 1024

Sequences = Sequence[tuple[Encoded, tuple[Hashable, ...]]]  # beside the names of their pictures


def log_probabilities(
    model: SiQVLForConditionalGeneration, sequences: Sequences, encode: Encode
) -> list[float]:
    """Sums log p(token | all before it), in nats, over the tokens of each sequence with a label.

    Logits are made for those tokens alone, and a prompt that several sequences begin with is read
    once.

    Args:
        encode: makes the model's argument for pictures of these names.
    """
    token = model.config.image_token_id
    with torch.inference_mode():
        found = read(model, [_begun(*one, token) for one in sequences], encode, keep=False)
        starts = found.starts.tolist()
        own = [one.labels[start + 1 :] for (one, _), start in zip(sequences, starts, strict=True)]
        labels = padded(own, IGNORED).to(found.hidden.device)
        learned = labels != IGNORED
        at, tokens = found.hidden[:, : labels.shape[1]][learned], labels[learned]
        log_probs = [
            model.lm_head(at[start : start + POSITIONS])
            .float()
            .log_softmax(-1)
            .gather(1, tokens[start : start + POSITIONS, None])
            for start in range(0, len(tokens), POSITIONS)
        ]
        each = torch.cat(log_probs)[:, 0].cpu().double()  # Apple's GPUs have no float64
        rows = learned.nonzero()[:, 0].cpu()
        sums = each.new_zeros(len(sequences)).index_add(0, rows, each)
    return sums.tolist()


def _begun(one: Encoded, pictures: tuple[Hashable, ...], image_token: int) -> Prompt:
    """A sequence whose prompt may be shared, but for its last token, which is read for a score."""
    first = next(place for place, label in enumerate(one.labels) if label != IGNORED)
    shared = max(first - 1, 0)
    if after_pictures(one.input_ids, image_token) > shared:
        shared = 0
    return Prompt(one.input_ids, pictures, shared)
