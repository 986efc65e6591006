"""Texts that a loaded checkpoint writes after prompts."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import torch

from siqvl.checkpoint import verify_checkpoint
from siqvl.data.encode import encode_prompt
from siqvl.data.encoded import Item
from siqvl.data.schema import Row
from siqvl.device import Precision, answering_attention, best_device
from siqvl.errors import UserError, one_line
from siqvl.generation.beginnings import Prompt
from siqvl.generation.choose import Choose, likeliest
from siqvl.generation.loop import Written, end_ids, write
from siqvl.model.assemble import load_checkpoint
from siqvl.model.modeling import SiQVLForConditionalGeneration
from siqvl.model.processing import SiQVLProcessor
from siqvl.model.progress_bars import bars_on_terminals_alone

if TYPE_CHECKING:
    from PIL.Image import Image


class Completion(NamedTuple):
    """What a model wrote."""

    text: str  # without special tokens and surrounding space
    ended: bool  # by an end token, not by the limit of tokens


def load_to_answer(
    checkpoint: Path, attention: str, precision: Precision = "fp32"
) -> tuple[SiQVLForConditionalGeneration, SiQVLProcessor]:
    """Loads a checkpoint directory on the fastest device of this machine.

    Args:
        attention: `model.attention` of a recipe.
        precision: of weights and arithmetic.

    Raises:
        UserError: the files are not what the checkpoint's card says, or are no model that works.
    """
    kernel = answering_attention(attention)
    verify_checkpoint(checkpoint)
    try:
        bars_on_terminals_alone()
        model, processor = load_checkpoint(checkpoint, attn_implementation=kernel)
    except (ValueError, OSError) as error:
        raise UserError(one_line(error)) from error
    dtype = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}[precision]
    model.to(best_device(), dtype)  # type: ignore[arg-type]  # transformers wraps `to` untyped
    return model.eval(), processor


def prompt_item(row: Row, processor: SiQVLProcessor, *, suffix: str = "") -> Item:
    """Encodes the prompt of a row, beside its decoded pictures; `suffix` as in `encode_prompt`."""
    prompt = encode_prompt(row, processor, suffix=suffix)
    return {"input_ids": prompt.input_ids, "images": row["images"]}


def complete(
    model: SiQVLForConditionalGeneration,
    processor: SiQVLProcessor,
    items: Sequence[Item],
    *,
    max_new_tokens: int,
    places: int | None = None,
    samples: int = 1,
    choose: Choose = likeliest,
    progress: Callable[[int], object] | None = None,
) -> list[Completion]:
    """Writes completions of prompts, `samples` for each, which follow one another.

    Args:
        items: `input_ids`, and `images` as `prompt_item` has them.
        places: completions at once; None: all of them.
        progress: told of prompts all of whose completions have ended, one by one.
    """

    def encode(names: Sequence[Any]) -> torch.Tensor:
        return _tokens([items[item]["images"][number] for item, number in names], processor, model)

    token = model.config.image_token_id
    prompts = []
    for number, item in enumerate(items):
        names = tuple((number, picture) for picture in range(len(item["images"])))
        prompts.append(Prompt.asked(item["input_ids"], names, token))
    written = write(
        model,
        prompts,
        encode,
        places=places or samples * len(prompts),
        max_new_tokens=max_new_tokens,
        end_ids=end_ids(model, processor.tokenizer.eos_token_id),
        samples=samples,
        choose=choose,
    )
    found: list[Written | None] = [None] * (samples * len(prompts))
    left = [samples] * len(prompts)
    for row, one in written:
        found[row] = one
        left[row // samples] -= 1
        if progress is not None and not left[row // samples]:
            progress(1)
    return texts_of([one for one in found if one is not None], processor)


def texts_of(written: Sequence[Written], processor: SiQVLProcessor) -> list[Completion]:
    """Decodes tokens that were written."""
    texts = processor.batch_decode([one.ids for one in written], skip_special_tokens=True)
    return [Completion(text.strip(), one.ended) for text, one in zip(texts, written, strict=True)]


def _tokens(
    images: list[Image], processor: SiQVLProcessor, model: SiQVLForConditionalGeneration
) -> torch.Tensor:
    pixels = processor.image_processor(images=images, return_tensors="pt")["pixel_values"]
    found = model.get_image_features(pixels.to(model.device), return_dict=True).pooler_output
    assert found is not None
    return found
