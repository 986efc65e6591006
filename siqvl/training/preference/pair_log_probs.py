"""One pass of the model over a batch of pairs -> the log-probability of every completion."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from siqvl.data.collate import Batch
from siqvl.model.modeling import SiQVLForConditionalGeneration

#: Keys of a batch of `PreferenceCollator` that say something about it and are not for the model.
ABOUT = ("completion_tokens", "segments", "image_order", "ref_chosen_logps", "ref_rejected_logps")
#: Kernels that take any mask; the others know packed rows by their positions alone.
TAKE_ANY_MASK = ("sdpa", "eager")


def completion_log_probs(
    model: torch.nn.Module, batch: Batch, *, core: SiQVLForConditionalGeneration, head_chunk: int
) -> tuple[torch.Tensor, ...]:
    """log p(token | all before it) of every completion's tokens with a label, in nats.

    The tower runs once a picture, for both sides of its pair.

    Args:
        model: `core`, or what it is wrapped in to train on several devices.
        batch: of `PreferenceCollator`, on the model's device.
        head_chunk: tokens whose logits are in memory at once.

    Returns:
        Of each completion [tokens] float32: chosen, rejected, pair after pair.
    """
    inputs = {name: value for name, value in batch.items() if name not in ABOUT}
    if "segments" in batch:
        attention = core.config.text_config._attn_implementation
        inputs["attention_mask"] = segment_mask(batch["segments"], additive=attention == "eager")
    if "image_order" in batch:
        # FSDP gathers weights only in a pass of the whole model: no part of it runs by itself
        sharded = any(hasattr(weight, "full_tensor") for weight in core.parameters())
        if "pixel_values" in inputs and not sharded:
            pixels = inputs.pop("pixel_values")
            inputs["vision_features"] = core.model.get_vision_features(pixels)
        name = "vision_features" if "vision_features" in inputs else "pixel_values"
        inputs[name] = inputs[name][batch["image_order"]]
    found = model(**inputs, use_cache=False, head_chunk=head_chunk).log_probs
    return found.split(batch["completion_tokens"])


def sums(each: Sequence[torch.Tensor]) -> torch.Tensor:
    """Of every completion, [completions].

    Adding up by index would have no fixed order on a GPU, and so no fixed rounding.
    """
    return torch.stack([part.sum() for part in each])


def segment_mask(segments: torch.Tensor, *, additive: bool) -> torch.Tensor:
    """What each token sees in rows of pairs that share prompts, see `PreferenceCollator`.

    transformers hands a mask with four dimensions on as it is (masking_utils.py
    `_preprocess_mask_arguments`): sdpa wants booleans, which need not be of the queries' dtype;
    eager attention adds what it is given to the scores.

    Args:
        segments: [batch, tokens].

    Returns:
        [batch, 1, tokens, tokens]: True, or 0, where a query (third dimension) sees a key. Every
        token sees itself, also one that only fills its row up.
    """
    places = torch.arange(segments.shape[1], device=segments.device)
    query, key = segments[:, None, :, None], segments[:, None, None, :]
    seen = (key == query) | (key == query - query % 3)
    seen &= places[:, None] >= places
    if not additive:
        return seen
    least = torch.finfo(torch.float32).min
    return torch.zeros_like(seen, dtype=torch.float32).masked_fill(~seen, least)
