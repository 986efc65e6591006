"""Texts that a loaded checkpoint writes after prompts."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from siqvl.checkpoint import verify_checkpoint
from siqvl.data.collate import GenerationCollator
from siqvl.data.encode import encode_prompt
from siqvl.data.encoded import Item
from siqvl.data.schema import Row
from siqvl.device import answering_attention, best_device
from siqvl.errors import UserError, one_line
from siqvl.generation.loop import Choose, end_ids, likeliest, write
from siqvl.model.assemble import load_checkpoint
from siqvl.model.modeling import SiQVLForConditionalGeneration
from siqvl.model.processing import SiQVLProcessor


class Completion(NamedTuple):
    """What a model wrote."""

    text: str  # without special tokens and surrounding space
    ended: bool  # by an end token, not by the limit of tokens


def load_to_answer(
    checkpoint: Path, attention: str
) -> tuple[SiQVLForConditionalGeneration, SiQVLProcessor]:
    """Loads a checkpoint directory on the fastest device of this machine.

    Args:
        attention: `model.attention` of a recipe.

    Raises:
        UserError: the files are not what the checkpoint's card says, or are no model that works.
    """
    kernel = answering_attention(attention)
    verify_checkpoint(checkpoint)
    try:
        model, processor = load_checkpoint(checkpoint, attn_implementation=kernel)
    except (ValueError, OSError) as error:
        raise UserError(one_line(error)) from error
    model.to(best_device())  # type: ignore[arg-type]  # transformers wraps `to` untyped
    return model.eval(), processor


def prompt_item(row: Row, processor: SiQVLProcessor, *, suffix: str = "") -> Item:
    """Encodes the prompt of a row, beside its decoded pictures; `suffix` as in `encode_prompt`."""
    prompt = encode_prompt(row, processor, suffix=suffix)
    return {"input_ids": prompt.input_ids, "images": row["images"]}


def complete(
    model: SiQVLForConditionalGeneration,
    processor: SiQVLProcessor,
    prompts: Sequence[Item],
    *,
    max_new_tokens: int,
    samples: int = 1,
    choose: Choose = likeliest,
    **encoded: Any,
) -> list[Completion]:
    """Writes completions of a batch of prompts, `samples` for each, which follow one another.

    Args:
        prompts: `input_ids`, and `images` as `prompt_item` has them.
        encoded: the model's arguments for pictures that are not among the prompts' images.
    """
    batch = GenerationCollator(processor)(prompts)
    written = write(
        model,
        {name: one.to(model.device) for name, one in batch.items()} | encoded,
        max_new_tokens=max_new_tokens,
        end_ids=end_ids(model, processor.tokenizer.eos_token_id),
        samples=samples,
        choose=choose,
    )
    texts = processor.batch_decode([one.ids for one in written], skip_special_tokens=True)
    return [Completion(text.strip(), one.ended) for text, one in zip(texts, written, strict=True)]
