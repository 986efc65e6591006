"""Prepared rows, encoded once, as a map-style data set for a torch DataLoader."""

from __future__ import annotations

from array import array
from collections.abc import Sequence
from copy import copy
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image

from siqvl.data.schema import RowKind
from siqvl.errors import UserError, one_line

if TYPE_CHECKING:
    from datasets import Dataset

IGNORED = -100  # label of a token without loss
MISSING_HASHES = "the prepared data has no column `image_hashes`; prepare the data again"

Item = dict[str, Any]


@dataclass(frozen=True)
class Encoded:
    """One sequence: ids and labels of equal length (labels are empty for a bare prompt)."""

    input_ids: list[int]
    labels: list[int]
    num_images: int

    def __len__(self) -> int:
        return len(self.input_ids)


class UnreadablePicture(UserError):
    """A stored picture that does not decode any more; the message names its row."""

    def __init__(self, message: str) -> None:
        # A DataLoader worker's exception is made anew in the main process, its traceback put
        # before its message: keep the sentence alone.
        super().__init__(message.rpartition(f"{type(self).__name__}: ")[2].strip())


class EncodedDataset:
    """Ids and labels in memory, images decoded from the shards when an item is asked for.

    Items by kind of row (ids and labels are lists of ints, images a list of PIL images):

    - SFT: `input_ids`, `labels`, `images`
    - preference: `chosen_input_ids`, `chosen_labels`, `rejected_input_ids`, `rejected_labels`,
      `images`
    - evaluation: `input_ids`, `images`

    In the view that `with_hashes` gives, `image_hashes` (a list of str) stands for `images`; in
    that of `with_reference`, pairs have `ref_chosen_logps` and `ref_rejected_logps` (floats).

    Attributes:
        lengths: tokens of each item, for grouping by length; of a pair those of its longer side,
            or in the views of `as_pairs` those of both.
        num_images: images of each item.
        rows: index of each item in the data set that was encoded.
        left_out: reason -> rows that `encode_dataset` left out.
    """

    def __init__(
        self,
        dataset: Dataset,
        kind: RowKind,
        sequences: dict[str, Sequences],
        rows: list[int],
        num_images: list[int],
        left_out: dict[str, int],
    ) -> None:
        self._pictures = "images"  # the column that stands for them in an item
        self._reference: np.ndarray | None = None  # log-probabilities of pairs [items, 2]
        self._sequences = sequences
        self.kind = kind
        self.rows = rows
        self.num_images = num_images
        self.left_out = left_out
        each = [sequence.lengths() for sequence in sequences.values()]
        self.lengths: list[int] = [max(pair) for pair in zip(*each, strict=True)]
        # Asked for one at a time: a row of the whole data set would decode every column.
        self._columns = {name: dataset.select_columns([name]) for name in dataset.column_names}

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int) -> Item:
        index = self._position(index)
        item = self.tokens(index)
        if self._reference is not None:
            chosen, rejected = self._reference[index].tolist()
            item |= {"ref_chosen_logps": chosen, "ref_rejected_logps": rejected}
        if self._pictures == "image_hashes":
            return item | {"image_hashes": self.image_hashes(index)}
        return item | {"images": self.images(index)}

    def tokens(self, index: int) -> Item:
        """The ids and labels of an item, without its pictures."""
        index = self._position(index)
        item: Item = {}
        for side, sequences in self._sequences.items():
            prefix = f"{side}_" if side else ""
            item[f"{prefix}input_ids"], labels = sequences[index]
            if self.kind is not RowKind.EVALUATION:
                item[f"{prefix}labels"] = labels
        return item

    def images(self, index: int) -> list[Image.Image]:
        """The decoded images of an item.

        Raises:
            UnreadablePicture: one of them does not decode.
        """
        row = self.rows[self._position(index)]
        try:
            return self._columns["images"][row]["images"]
        except Exception as error:  # Pillow's decoders raise OSError, SyntaxError, ValueError, …
            raise UnreadablePicture(
                f"a picture of row {self.row_id(index)} cannot be read ({one_line(error)}); "
                "prepare the data again"
            ) from None

    def image_hashes(self, index: int) -> list[str]:
        """The content hashes of an item's images, under which their features are cached.

        Raises:
            UserError: the rows were stored without them.
        """
        if "image_hashes" not in self._columns:
            raise UserError(MISSING_HASHES)
        return self._columns["image_hashes"][self.rows[self._position(index)]]["image_hashes"]

    def stored(self, index: int, columns: Sequence[str]) -> dict[str, Any]:
        """Some columns of the stored row that an item was made from."""
        row = self.rows[self._position(index)]
        return {name: self._columns[name][row][name] for name in columns}

    def row_id(self, index: int) -> str:
        """The id of the stored row that an item was made from."""
        return self._columns["id"][self.rows[self._position(index)]]["id"]

    def with_hashes(self) -> EncodedDataset:
        """A view whose items carry `image_hashes` for `images`, so that nothing is decoded."""
        view = copy(self)
        view._pictures = "image_hashes"
        return view

    @property
    def sides(self) -> tuple[str, ...]:
        """`chosen` and `rejected` of preference rows, else one without a name."""
        return tuple(self._sequences)

    def token_counts(self, side: str = "") -> np.ndarray:
        """Tokens of each item, or of one side of each pair."""
        return self._sequences[side].token_counts()

    def learned_tokens(self, side: str = "") -> np.ndarray:
        """Tokens of each item that carry loss; its first never does, as nothing predicts it."""
        return self._sequences[side].learned_tokens()

    def as_pairs(self, *, shared_prompt: bool) -> EncodedDataset:
        """A view of preference rows whose `lengths` are what a pair takes in a batch.

        Args:
            shared_prompt: the prompt stands once, and a copy of its last token between the two
                completions, see `siqvl.data.pairs.PreferenceCollator`.
        """
        chosen, rejected = self._sequences["chosen"], self._sequences["rejected"]
        both = np.add(chosen.lengths(), rejected.lengths())
        view = copy(self)
        view.lengths = (both - chosen.prompts() + 1 if shared_prompt else both).tolist()
        return view

    def with_reference(self, log_probs: np.ndarray) -> EncodedDataset:
        """A view whose items carry their log-probabilities under the reference.

        Args:
            log_probs: float32 [items, 2], in nats: of the chosen and the rejected completion.
        """
        view = copy(self)
        view._reference = log_probs
        return view

    def _position(self, index: int) -> int:
        if not -len(self) <= index < len(self):
            raise IndexError(f"item {index} of {len(self)}")
        return index % len(self)


class Sequences:
    """Many token sequences, back to back in two arrays: 5 bytes a token instead of 36."""

    def __init__(self) -> None:
        self._ids = array("i")
        self._learned = array("b")  # 1 where the label is the token itself
        self._ends = array("q", [0])

    def append(self, one: Encoded) -> None:
        """Take one more; all have to be there before the first is asked for."""
        self._ids.extend(one.input_ids)
        self._learned.extend([label != IGNORED for label in one.labels or [IGNORED] * len(one)])
        self._ends.append(len(self._ids))

    def __getitem__(self, index: int) -> tuple[list[int], list[int]]:
        part = slice(self._ends[index], self._ends[index + 1])
        ids = self._ids[part].tolist()
        learned = self._learned[part]
        return ids, [one if learns else IGNORED for one, learns in zip(ids, learned, strict=True)]

    def lengths(self) -> list[int]:
        return self.token_counts().tolist()

    def learned_tokens(self) -> np.ndarray:
        """Labels of each sequence that count, its first left out."""
        learned = np.frombuffer(self._learned, np.int8)
        starts = np.frombuffer(self._ends, np.int64)[:-1]  # of sequences, none of which is empty
        return np.add.reduceat(learned, starts, dtype=np.int64) - learned[starts]

    def prompts(self) -> np.ndarray:
        """Tokens of each sequence before the first one with a label; all have such a one."""
        learned = np.flatnonzero(np.frombuffer(self._learned, np.int8))
        starts = np.frombuffer(self._ends, np.int64)[:-1]
        return learned[np.searchsorted(learned, starts)] - starts

    def token_counts(self) -> np.ndarray:
        return np.diff(np.frombuffer(self._ends, np.int64))
