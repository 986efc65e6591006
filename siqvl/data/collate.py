"""Items -> batches, padded or packed. Collators leave the items as they are.

Wherever a batch has `pixel_values`, a collator that was given `features` (image hash -> what the
frozen tower makes of that image) puts `vision_features` (images, patches, vision hidden) instead;
its items come from `EncodedDataset.with_hashes`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import KW_ONLY, dataclass
from itertools import chain
from typing import Any

import torch

from siqvl.data.encoded import IGNORED, Item
from siqvl.model.processing import SiQVLProcessor

Batch = dict[str, Any]
Features = Mapping[str, torch.Tensor]  # image hash -> (patches, vision hidden)


@dataclass(frozen=True)
class SFTCollator:
    """Right-padded batches for supervised training.

    Returns: `input_ids`, `attention_mask`, `labels`, each (B, T), and `pixel_values` (images, 3,
    H, W) unless no item of the batch has an image.
    """

    processor: SiQVLProcessor
    features: Features | None = None

    def __call__(self, items: Sequence[Item]) -> Batch:
        pad = self.processor.tokenizer.pad_token_id
        ids = [item["input_ids"] for item in items]
        batch = {
            "input_ids": padded(ids, pad),
            "attention_mask": padded([[1] * len(row) for row in ids], 0),
            "labels": padded([item["labels"] for item in items], IGNORED),
        }
        return batch | pictures(items, self.processor, self.features)


@dataclass(frozen=True)
class PackedCollator:
    """Rows that share sequences, for supervised training: takes packs, each a list of items.

    Returns: `input_ids`, `position_ids`, `labels`, each (B, T) for B packs, and the images of all
    of them in reading order. The samples of a pack do not see each other, which transformers reads
    off `position_ids` alone: they start again from 0 at every sample, and there is no attention
    mask (with one, an all-ones one too, samples leak into each other). Nothing predicts the first
    token of a sample, so its label is -100. What fills the shorter packs up is a sample of its own
    without loss.

    Args:
        one_row: lay all packs of a batch into a single row (1, sum of their tokens), unpadded.
            flash_attention_2 needs it: transformers recognises packed rows there only in batches
            of one (modeling_flash_attention_utils.py `_is_packed_sequence`); with more, samples
            would leak. Other kernels would only spend more on the larger mask.
    """

    processor: SiQVLProcessor
    features: Features | None = None
    _: KW_ONLY
    one_row: bool = False

    def __call__(self, packs: Sequence[Sequence[Item]]) -> Batch:
        items = list(chain.from_iterable(packs))
        rows = [items] if self.one_row else packs
        width = max(sum(len(item["input_ids"]) for item in row) for row in rows)
        pad = self.processor.tokenizer.pad_token_id
        ids, positions, labels = [], [], []
        for row in rows:
            ids.append([token for item in row for token in item["input_ids"]])
            labels.append([label for item in row for label in [IGNORED, *item["labels"][1:]]])
            positions.append([place for item in row for place in range(len(item["input_ids"]))])
            positions[-1].extend(range(width - len(positions[-1])))
        batch = {
            "input_ids": padded(ids, pad),
            "position_ids": padded(positions, 0),
            "labels": padded(labels, IGNORED),
        }
        return batch | pictures(items, self.processor, self.features)


def padded(rows: Sequence[Sequence[int]], value: int) -> torch.Tensor:
    """Rows of different length -> (B, T) int64."""
    width = max(map(len, rows))
    return torch.tensor([[*row, *[value] * (width - len(row))] for row in rows])


def pictures(
    items: Sequence[Item], processor: SiQVLProcessor, features: Features | None = None
) -> Batch:
    """All images of the items in order; empty if there are none."""
    if features is not None:
        hashes = [image_hash for item in items for image_hash in item["image_hashes"]]
        if not hashes:
            return {}
        return {"vision_features": torch.stack([features[image_hash] for image_hash in hashes])}
    images = [image for item in items for image in item["images"]]
    if not images:
        return {}
    values = processor.image_processor(images=images, return_tensors="pt")["pixel_values"]
    return {"pixel_values": values}
