"""How much work rows are: the sizes that their floating-point operations follow from."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Generic, TypeVar

from siqvl.data.schema import RowKind

if TYPE_CHECKING:
    import numpy as np

    from siqvl.data.encoded import EncodedDataset

Size = TypeVar("Size", int, float, "np.ndarray")


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


class ItemWork:
    """The sizes of every item of a data set, in arrays.

    Args:
        dataset: rows of kind SFT or preference.
        shared_prompt: a pair's prompt stands once, before both of its completions.

    Attributes:
        sequences: sequences that an item makes: 2 of a pair with its prompt twice, else 1.
        lengths: tokens of an item's sequence, of the longer one if they are two.
        losses: learned tokens of each item, of its chosen side alone if it is a pair.
    """

    def __init__(self, dataset: EncodedDataset, *, shared_prompt: bool = False) -> None:
        import numpy as np

        self._images = np.asarray(dataset.num_images, np.int64)
        self._tokens = [dataset.token_counts(side) for side in dataset.sides]
        self._learned = [dataset.learned_tokens(side) for side in dataset.sides]
        pairs = dataset.kind is RowKind.PREFERENCE
        self._shared = pairs and shared_prompt
        self.losses = self._learned[0]
        self.sequences = 2 if pairs and not shared_prompt else 1
        self.lengths = np.max(self._tokens, axis=0)
        if self._shared:
            self.lengths = self._tokens[0] + self._learned[1]

    def of(self, items: np.ndarray) -> Work[np.ndarray]:
        """The work that some items are, one entry each."""
        tokens = [counts[items] for counts in self._tokens]
        learned = [counts[items] for counts in self._learned]
        images = self._images[items] * self.sequences
        pairs = sum(n * (n + 1) // 2 for n in tokens)
        if self._shared:
            prompt = tokens[0] - learned[0]  # a pair learns all of its completions
            pairs = pairs - prompt * (prompt + 1) // 2
            return Work(tokens[0] + learned[1], pairs, images, sum(learned))
        return Work(sum(tokens), pairs, images, sum(learned))

    def total(self, items: np.ndarray) -> Work[int]:
        """The work that some items are together."""
        each = self.of(items)
        return Work(
            int(each.tokens.sum()),
            int(each.pairs.sum()),
            int(each.images.sum()),
            int(each.learned.sum()),
        )
