"""What is put to the model, and what comes back."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple, Protocol

from siqvl.data.encoded import Encoded
from siqvl.data.schema import Row

if TYPE_CHECKING:
    from siqvl.evaluation.asking.encoded_pictures import EncodedPictures


@dataclass(frozen=True)
class Prompt:
    """Encoded words and the pictures they speak of.

    Attributes:
        words: one sequence; of a preference pair two.
        pictures: hashes, in the order in which the words speak of them.
        options: how many letters there are to choose from.
    """

    words: tuple[Encoded, ...]
    pictures: tuple[str, ...]
    options: int = 0

    def __len__(self) -> int:
        """Tokens."""
        return max(map(len, self.words))


class Output(NamedTuple):
    """What the model made of a prompt."""

    generation: str
    margin: float | None = None  # of a preference


#: Takes the number of a prompt that is answered, and how many tokens were written for it.
Told = Callable[[int, int], object]


class Method(Protocol):
    """A way to ask: `siqvl.evaluation.asking.greedy_answers`, `likelihood` or `preferred`."""

    def text(self, row: Row) -> Hashable:
        """Names all that a row's words are made of: where it is equal, the words are."""

    def words(self, row: Row, images: int) -> tuple[Encoded, ...]:
        """Encodes a row's words, when they come with so many pictures."""

    def answer(
        self, prompts: Sequence[Prompt], pictures: EncodedPictures, told: Told
    ) -> list[Output]:
        """Puts prompts to the model, and tells of each as it is answered."""
