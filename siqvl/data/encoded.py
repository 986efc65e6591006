"""Prepared rows, encoded once, as a map-style data set for a torch DataLoader."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from siqvl.data.schema import RowKind

if TYPE_CHECKING:
    import numpy as np
    from datasets import Dataset
    from PIL import Image
    from pyarrow import LargeListArray

IGNORED = -100  # label of a token without loss

Item = dict[str, Any]


@dataclass(frozen=True)
class Encoded:
    """One sequence: ids and labels of equal length (labels are empty for a bare prompt)."""

    input_ids: list[int]
    labels: list[int]
    num_images: int

    def __len__(self) -> int:
        return len(self.input_ids)


class EncodedDataset:
    """Ids and labels in memory, images decoded from the shards when an item is asked for.

    Items by kind of row (ids and labels are lists of ints, images a list of PIL images):

    - SFT: `input_ids`, `labels`, `images`
    - preference: `chosen_input_ids`, `chosen_labels`, `rejected_input_ids`, `rejected_labels`,
      `images`
    - evaluation: `input_ids`, `images`

    Attributes:
        lengths: tokens of each item (of the longer side of a pair), for grouping by length.
        num_images: images of each item.
        rows: index of each item in the data set that was encoded.
        left_out: rows that were longer than `max_length`.
    """

    def __init__(
        self,
        dataset: Dataset,
        kind: RowKind,
        sequences: dict[str, Sequences],
        rows: list[int],
        num_images: list[int],
        left_out: int,
    ) -> None:
        self._images = dataset.select_columns(["images"])
        self._sequences = sequences
        self.kind = kind
        self.rows = rows
        self.num_images = num_images
        self.left_out = left_out
        each = [sequence.lengths() for sequence in sequences.values()]
        self.lengths: list[int] = [max(pair) for pair in zip(*each, strict=True)]

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int) -> Item:
        if not -len(self) <= index < len(self):
            raise IndexError(f"item {index} of {len(self)}")
        index %= len(self)
        item: Item = {}
        for side, sequences in self._sequences.items():
            prefix = f"{side}_" if side else ""
            item[f"{prefix}input_ids"], labels = sequences[index]
            if self.kind is not RowKind.EVALUATION:
                item[f"{prefix}labels"] = labels
        return item | {"images": self.images(index)}

    def images(self, index: int) -> list[Image.Image]:
        """The decoded images of an item."""
        return self._images[self.rows[index]]["images"]

    def to_dataset(self) -> Dataset:
        """The same items as a `datasets.Dataset`, which TRL's DPOTrainer insists on.

        Images are not copied, and are decoded when an item is asked for, as here.
        """
        import pyarrow as pa
        from datasets import Dataset, concatenate_datasets

        columns = {}
        for side, sequences in self._sequences.items():
            prefix = f"{side}_" if side else ""
            ids, labels = sequences.columns(self.rows, len(self._images))
            columns[f"{prefix}input_ids"] = ids
            if self.kind is not RowKind.EVALUATION:
                columns[f"{prefix}labels"] = labels
        # all rows, then a selection: joining columns to a selection would copy the images
        joined = concatenate_datasets([self._images, Dataset(pa.table(columns))], axis=1)
        return joined.select(self.rows)


class Sequences:
    """Many token sequences, back to back in two arrays: 5 bytes a token instead of 36."""

    def __init__(self, encoded: Sequence[Encoded]) -> None:
        import numpy as np

        lengths = [len(one) for one in encoded]
        self._ends = np.cumsum([0, *lengths])
        self._ids = np.fromiter((i for one in encoded for i in one.input_ids), np.int32)
        self._learned = np.fromiter(
            (label != IGNORED for one in encoded for label in (one.labels or [IGNORED] * len(one))),
            np.bool_,
        )

    def __getitem__(self, index: int) -> tuple[list[int], list[int]]:
        part = slice(self._ends[index], self._ends[index + 1])
        ids: np.ndarray = self._ids[part]
        labels = ids.copy()
        labels[~self._learned[part]] = IGNORED
        return ids.tolist(), labels.tolist()

    def lengths(self) -> list[int]:
        return (self._ends[1:] - self._ends[:-1]).tolist()

    def columns(self, rows: list[int], total: int) -> tuple[LargeListArray, LargeListArray]:
        """Ids and labels as Arrow lists, empty in those of `total` rows that are not in `rows`."""
        import numpy as np
        import pyarrow as pa

        lengths = np.zeros(total, np.int64)
        lengths[rows] = self._ends[1:] - self._ends[:-1]
        ends = pa.array(np.concatenate([[0], np.cumsum(lengths)]), pa.int64())
        labels = np.where(self._learned, self._ids, np.int32(IGNORED))
        return (
            pa.LargeListArray.from_arrays(ends, pa.array(self._ids)),
            pa.LargeListArray.from_arrays(ends, pa.array(labels)),
        )
