"""The items of a JSON list, one after the other, without the rest of the file in memory."""

from __future__ import annotations

import io
import json
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

from siqvl.data.sources.formats.text_file import encoding, head_of, opened

CHUNK = 2**20  # characters that are read at a time; more where an item is longer
SPACE = " \t\r\n"
ENDS = frozenset({",", "]", *SPACE})
Pairs = list[tuple[str, Any]]
#: By `id`, the pairs of objects in which a key stands twice.
Repeated = dict[int, Pairs]


def noting(repeated: Repeated) -> json.JSONDecoder:
    """A decoder that notes objects in which a key stands twice, of which it keeps the last value.

    Whoever holds `repeated` keeps alive all that is in it, so that no `id` comes twice.
    """

    def noted(pairs: Pairs) -> dict[str, Any]:
        found = dict(pairs)
        if len(found) != len(pairs):
            repeated[id(found)] = pairs
        return found

    return json.JSONDecoder(object_pairs_hook=noted)


def list_items(file: Path) -> Iterator[tuple[Any, Repeated]]:
    """The items of a file that holds one list, each with what `noting` noted in it.

    Raises:
        ValueError: from some place on it is no JSON list. Where, only reading it whole tells.
        RecursionError: an item is too deep.
    """
    with (
        opened(file) as raw,
        io.TextIOWrapper(raw, encoding(head_of(file, 4)), newline="") as stream,
    ):
        ahead = _Ahead(stream)
        ahead.take("[")
        if ahead.next() == "]":
            ahead.take("]")
        else:
            while True:
                yield ahead.item()
                if ahead.next() != ",":
                    break
                ahead.take(",")
            ahead.take("]")
        if ahead.next():
            raise ValueError("something stands behind the list")


class _Ahead:
    """A text of which as much is in memory as is looked at."""

    def __init__(self, stream: IO[str]) -> None:
        self._stream = stream
        self._text, self._at, self._is_end = "", 0, False

    def next(self) -> str:
        """The next character that is no space; empty at the end."""
        while True:
            text = self._text
            while self._at < len(text):
                if text[self._at] not in SPACE:
                    return text[self._at]
                self._at += 1
            if not self._read():
                return ""

    def take(self, character: str) -> None:
        """Go past a character, which has to be the next one."""
        if self.next() != character:
            raise ValueError(f"expected {character}")
        self._at += 1

    def item(self) -> tuple[Any, Repeated]:
        """The next value. Until it is seen to end, `1` may be the beginning of `1.5`."""
        self.next()
        while True:
            repeated: Repeated = {}
            try:
                found, end = noting(repeated).raw_decode(self._text, self._at)
            except ValueError:
                if not self._read():
                    raise
                continue
            if self._text[end : end + 1] in ENDS or not self._read():
                self._at = end
                return found, repeated

    def _read(self) -> bool:
        """Read on, twice as much when an item is that long; whether there was anything."""
        left = len(self._text) - self._at
        more = "" if self._is_end else self._stream.read(max(CHUNK, left))
        self._is_end = not more
        if more:
            self._text, self._at = self._text[self._at :] + more, 0
        return bool(more)
