"""One answer as it comes: its text, and how quickly it was written."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from unicodedata import category

from siqvl.data.encoded import Item
from siqvl.errors import UserError
from siqvl.generation.engine import Engine
from siqvl.generation.request import Finish, Sampling


@dataclass
class Spoken:
    """What was written so far.

    Attributes:
        tokens: its end token counted in.
        first, seconds: until the first token, and until the last one.
        finish: None while it is written, and where it was stopped.
    """

    text: str = ""
    tokens: int = 0
    first: float = 0.0
    seconds: float = 0.0
    finish: Finish | None = None

    @property
    def rate(self) -> float:
        """Tokens a second, after the first one, whose time is that of reading the prompt."""
        if self.tokens < 2:
            return self.tokens / max(self.seconds, 1e-9)
        return (self.tokens - 1) / max(self.seconds - self.first, 1e-9)

    def figures(self) -> str:
        """Returns `12 tokens, 34.5 tokens/s, first after 0.21 s`."""
        counted = f"{self.tokens:,} token{'' if self.tokens == 1 else 's'}"
        return f"{counted}, {self.rate:,.1f} tokens/s, first after {self.first:.2f} s"


def speak(
    engine: Engine, item: Item, sampling: Sampling, spoken: Spoken, show: Callable[[str], object]
) -> None:
    """Has an answer written, and shows each piece of it; who is interrupted stops it.

    Args:
        spoken: holds what was written, also where this is interrupted.

    Raises:
        UserError: it cannot be written: too many tokens, or the model fails on it.
    """
    begun = time.monotonic()
    for piece in engine.stream(item, sampling):
        spoken.seconds = time.monotonic() - begun
        spoken.first = spoken.first or spoken.seconds
        spoken.text += piece.text
        spoken.tokens, spoken.finish = piece.written, piece.finish
        show(piece.text)
    if spoken.finish == "error":
        raise UserError("the model failed on this; its log says why")


def printable(text: str) -> str:
    """A text without what would steer a terminal; line breaks and tabs stay."""
    return "".join(one for one in text if one in "\n\t" or category(one) != "Cc")
