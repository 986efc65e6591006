"""Items -> padded batches. Collators leave the items as they are."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from siqvl.data.encoded import IGNORED

if TYPE_CHECKING:
    import torch

    from siqvl.data.encoded import Item
    from siqvl.model.processing import SiQVLProcessor

Batch = dict[str, Any]


class SFTCollator:
    """Right-padded batches for supervised training.

    Returns: `input_ids`, `attention_mask`, `labels`, each (B, T), and `pixel_values` (images, 3,
    H, W) unless no item of the batch has an image.
    """

    def __init__(self, processor: SiQVLProcessor) -> None:
        self.processor = processor

    def __call__(self, items: Sequence[Item]) -> Batch:
        pad = self.processor.tokenizer.pad_token_id
        ids = [item["input_ids"] for item in items]
        batch = {
            "input_ids": padded(ids, pad),
            "attention_mask": padded([[1] * len(row) for row in ids], 0),
            "labels": padded([item["labels"] for item in items], IGNORED),
        }
        return batch | pixels(items, self.processor)


class PreferenceCollator:
    """Batches as TRL's DPOTrainer takes them: all chosen rows first, then all rejected ones.

    Layout of `DataCollatorForVisionPreference` in trl/trainer/dpo_trainer.py (TRL 1.16), with
    which DPOTrainer's loss works: `input_ids`, `attention_mask`, `completion_mask`, each (2B, T),
    `pixel_values` of the batch's images twice over, and `ref_chosen_logps` / `ref_rejected_logps`
    (B) where items carry them. Other than there, the end of an answer is its `<|im_end|>`, without
    a newline after it, and earlier assistant turns in the prompt carry no loss.

    Args:
        repeat_images: whether `pixel_values` holds the images once for each side, as DPOTrainer
            expects; without it, once for each pair.
    """

    def __init__(self, processor: SiQVLProcessor, *, repeat_images: bool = True) -> None:
        self.processor = processor
        self.repeat_images = repeat_images

    def __call__(self, items: Sequence[Item]) -> Batch:
        pad = self.processor.tokenizer.pad_token_id
        ids, masks = [], []
        for side in ("chosen", "rejected"):
            ids += [item[f"{side}_input_ids"] for item in items]
            masks += [[int(i != IGNORED) for i in item[f"{side}_labels"]] for item in items]
        batch: Batch = {
            "input_ids": padded(ids, pad),
            "attention_mask": padded([[1] * len(row) for row in ids], 0),
            "completion_mask": padded(masks, 0),
        }
        batch |= pixels(items, self.processor, repeats=2 if self.repeat_images else 1)
        for name in ("ref_chosen_logps", "ref_rejected_logps"):
            if name in items[0]:
                import torch

                batch[name] = torch.tensor([item[name] for item in items])
        return batch


class GenerationCollator:
    """Left-padded prompts, so that every answer continues at the last position.

    Returns: `input_ids` and `attention_mask` (B, T), and `pixel_values` if there are images.
    """

    def __init__(self, processor: SiQVLProcessor) -> None:
        self.processor = processor

    def __call__(self, items: Sequence[Item]) -> Batch:
        pad = self.processor.tokenizer.pad_token_id
        ids = [item["input_ids"] for item in items]
        batch = {
            "input_ids": padded(ids, pad, left=True),
            "attention_mask": padded([[1] * len(row) for row in ids], 0, left=True),
        }
        return batch | pixels(items, self.processor)


def padded(rows: Sequence[Sequence[int]], value: int, *, left: bool = False) -> torch.Tensor:
    """Rows of different length -> (B, T) int64."""
    import torch

    width = max(map(len, rows))
    fills = ([value] * (width - len(row)) for row in rows)
    if left:
        return torch.tensor([[*fill, *row] for row, fill in zip(rows, fills, strict=True)])
    return torch.tensor([[*row, *fill] for row, fill in zip(rows, fills, strict=True)])


def pixels(items: Sequence[Item], processor: SiQVLProcessor, repeats: int = 1) -> Batch:
    """`pixel_values` (images, 3, H, W) of all images in order; empty when there are none."""
    images = [image for item in items for image in item["images"]]
    if not images:
        return {}
    values = processor.image_processor(images=images, return_tensors="pt")["pixel_values"]
    return {"pixel_values": values.repeat(repeats, 1, 1, 1) if repeats > 1 else values}
