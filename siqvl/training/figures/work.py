"""How much work rows are: the sizes that their floating-point operations follow from."""

from __future__ import annotations

from dataclasses import dataclass
from operator import add
from typing import Generic, TypeVar

import numpy as np

from siqvl.data.encoded import EncodedDataset
from siqvl.data.schema import RowKind

Size = TypeVar("Size", int, float, np.ndarray)


@dataclass(frozen=True)
class Work(Generic[Size]):
    """What the model is given; sums, or an array with an entry for each row.

    Attributes:
        tokens: that go through the language model, those of pictures included.
        pairs: of a token and one that it attends to: n (n + 1) / 2 in a sample of n tokens, which
            is what a causal model needs, whatever a kernel computes beyond.
        images: that go through tower and projector.
        learned: tokens whose probability is computed.
    """

    tokens: Size
    pairs: Size
    images: Size
    learned: Size

    def __add__(self, more: Work[Size]) -> Work[Size]:
        return Work(*map(add, vars(self).values(), vars(more).values()))


class ItemWork:
    """The sizes of every item of a data set, in arrays.

    Args:
        dataset: rows of kind SFT or preference.
        shared_prompt: of pairs, see `siqvl.data.pairs.PreferenceCollator`; either way their
            pictures are encoded once.
        chosen_alone: of pairs, leave the rejected sides out, as the collator does.

    Attributes:
        losses: learned tokens of each item, of its chosen side alone if it is a pair.
    """

    def __init__(
        self, dataset: EncodedDataset, *, shared_prompt: bool = False, chosen_alone: bool = False
    ) -> None:
        sides = dataset.sides[:1] if chosen_alone else dataset.sides
        self._images = np.asarray(dataset.num_images, np.int64)
        self._tokens = [dataset.token_counts(side) for side in sides]
        self._learned = [dataset.learned_tokens(side) for side in sides]
        self._shared = shared_prompt and dataset.kind is RowKind.PREFERENCE and len(sides) > 1
        self.losses = self._learned[0]

    def of(self, items: np.ndarray) -> Work[np.ndarray]:
        """The work that some items are, one entry each."""
        each = [counts[items] for counts in self._tokens]
        learned = [counts[items] for counts in self._learned]
        tokens = sum(each[1:], each[0])
        pairs = sum(n * (n + 1) // 2 for n in each)
        if self._shared:
            # but for its last token, the prompt stands once; a pair learns all of its completions
            once = each[0] - learned[0] - 1
            tokens, pairs = tokens - once, pairs - once * (once + 1) // 2
        return Work(tokens, pairs, self._images[items], sum(learned[1:], learned[0]))

    def total(self, items: np.ndarray) -> Work[int]:
        """The work that some items are together."""
        return Work(*(int(sizes.sum()) for sizes in vars(self.of(items)).values()))
