"""Batched greedy answers."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from siqvl.data.collate import GenerationCollator
from siqvl.data.encode import encode_prompt
from siqvl.data.encoded import Item
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
            rows = [dataset[index] for index in range(start, stop)]
            items = [prompt_item(row, processor, suffix, blind) for row in rows]
            generations += _answer_items(model, processor, items, max_new_tokens, batch_size, bar)
    return generations


def prompt_item(row: Row, processor: SiQVLProcessor, suffix: str, blind: bool) -> Item:
    """The prompt as it is put to the model: `input_ids` and the `images` it speaks of."""
    images = [] if blind else row["images"]
    prompt = encode_prompt({**row, "images": images}, processor, suffix=suffix)
    return {"input_ids": prompt.input_ids, "images": images}


def _answer_items(
    model: SiQVLForConditionalGeneration,
    processor: SiQVLProcessor,
    items: list[Item],
    max_new_tokens: int,
    batch_size: int,
    bar: tqdm,
) -> list[str]:
    """Prompts of similar length share a batch, which saves padding and changes no answer."""
    import torch

    collate = GenerationCollator(processor)
    order = sorted(range(len(items)), key=lambda index: len(items[index]["input_ids"]))
    generations = [""] * len(items)
    for start in range(0, len(order), batch_size):
        indices = order[start : start + batch_size]
        batch = collate([items[index] for index in indices])
        batch = {name: tensor.to(model.device) for name, tensor in batch.items()}
        with torch.inference_mode():
            generated: Any = model.generate(  # type: ignore[misc]
                **batch, do_sample=False, max_new_tokens=max_new_tokens, use_cache=True
            )
        texts = processor.batch_decode(
            generated[:, batch["input_ids"].shape[1] :], skip_special_tokens=True
        )
        for index, text in zip(indices, texts, strict=True):
            generations[index] = text.strip()
        bar.update(len(indices))
    return generations
