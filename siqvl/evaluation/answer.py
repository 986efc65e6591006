"""Batched greedy answers."""

from __future__ import annotations

from typing import TYPE_CHECKING

from siqvl.data.collate import GenerationCollator
from siqvl.data.encode import encode_prompt
from siqvl.data.schema import Row

if TYPE_CHECKING:
    from datasets import Dataset
    from tqdm import tqdm

    from siqvl.model.modeling import SiQVLForConditionalGeneration
    from siqvl.model.processing import SiQVLProcessor


#: Batches whose rows are held in memory, and sorted by length, together.
BATCHES_AT_ONCE = 16


def answer(
    model: SiQVLForConditionalGeneration,
    processor: SiQVLProcessor,
    dataset: Dataset,
    *,
    suffix: str = "",
    blind: bool = False,
    max_new_tokens: int,
    batch_size: int,
    title: str,
) -> list[str]:
    """Greedy generations for evaluation rows, in the rows' order, with the KV cache.

    Args:
        suffix: appended to every question.
        blind: leave the images out, to see what the words alone give away.
    """
    from tqdm import tqdm

    model.eval()
    generations: list[str] = []
    with tqdm(total=len(dataset), desc=title, unit="question") as bar:
        for start in range(0, len(dataset), batch_size * BATCHES_AT_ONCE):
            stop = min(len(dataset), start + batch_size * BATCHES_AT_ONCE)
            rows = [ask(dataset[index], suffix, blind) for index in range(start, stop)]
            generations += _answer_rows(model, processor, rows, max_new_tokens, batch_size, bar)
    return generations


def ask(row: Row, suffix: str, blind: bool) -> Row:
    """The row as it is put to the model."""
    return {
        **row,
        "question": row["question"] + suffix,
        "images": [] if blind else row["images"],
    }


def _answer_rows(
    model: SiQVLForConditionalGeneration,
    processor: SiQVLProcessor,
    rows: list[Row],
    max_new_tokens: int,
    batch_size: int,
    bar: tqdm,
) -> list[str]:
    """Rows of similar length share a batch, which saves padding and changes no answer."""
    import torch

    collate = GenerationCollator(processor)
    encoded = [
        {"input_ids": encode_prompt(row, processor).input_ids, "images": row["images"]}
        for row in rows
    ]
    order = sorted(range(len(rows)), key=lambda index: len(encoded[index]["input_ids"]))
    generations = [""] * len(rows)
    for start in range(0, len(order), batch_size):
        indices = order[start : start + batch_size]
        batch = collate([encoded[index] for index in indices])
        batch = {name: tensor.to(model.device) for name, tensor in batch.items()}
        with torch.inference_mode():
            tokens = model.generate(
                **batch, do_sample=False, max_new_tokens=max_new_tokens, use_cache=True
            )
        texts = processor.batch_decode(
            tokens[:, batch["input_ids"].shape[1] :], skip_special_tokens=True
        )
        for index, text in zip(indices, texts, strict=True):
            generations[index] = text.strip()
        bar.update(len(indices))
    return generations
