"""How many requests are inside, and how many bytes of theirs: who comes beyond that is told so."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager

from siqvl.serving.server.refusals import Refused, stopping

#: Of the time that a request takes, how much a new one counts.
SMOOTHING = 0.1
LONGEST_WAIT = 60  # seconds that a request is sent away for


class Door:
    """Counts requests from their first byte to the last of their answer.

    Args:
        room: requests inside at most.
        body_bytes: bytes of their bodies that are held at most, all together.
    """

    def __init__(self, room: int, body_bytes: int) -> None:
        self._room, self._body_bytes = room, body_bytes
        self._seconds = 1.0  # that requests took lately
        self.inside = 0
        self.held = 0
        self.closed = False

    @contextmanager
    def visit(self) -> Iterator[None]:
        """Lets one request in.

        Raises:
            Refused: the server stops, or as many as there is room for are inside.
        """
        if self.closed:
            raise stopping()
        if self.inside >= self._room:
            raise self.busy(f"{self.inside:,} requests are being answered or wait already")
        self.inside += 1
        try:
            yield
        finally:
            self.inside -= 1

    @contextmanager
    def holding(self) -> Iterator[Held]:
        """Counts the bytes of one body for as long as it is held."""
        held = Held(self)
        try:
            yield held
        finally:
            held.let_go()

    def took(self, seconds: float) -> None:
        """Notes how long an answer took, by which the next ones are told when to come again."""
        self._seconds += SMOOTHING * (seconds - self._seconds)

    def busy(self, why: str) -> Refused:
        """What a request is told that comes when too much is going on."""
        wait = min(LONGEST_WAIT, max(1, math.ceil(self._seconds / 2)))
        said = f"{why}; ask again in {wait} s"
        return Refused(429, said, code="busy", retry_after=wait)

    def hold(self, count: int) -> None:
        """Counts bytes that are read, or no more (negative).

        Raises:
            Refused: all bodies together would be too much.
        """
        if self.held + count > self._body_bytes:
            raise self.busy("requests with large bodies are being read")
        self.held += count


class Held:
    """The bytes of one body."""

    def __init__(self, door: Door) -> None:
        self._door = door
        self._bytes = 0

    def add(self, count: int) -> None:
        """Takes more in.

        Raises:
            Refused: all bodies together would be too much.
        """
        self._door.hold(count)
        self._bytes += count

    def let_go(self) -> None:
        """Says that the body is gone."""
        self._door.hold(-self._bytes)
        self._bytes = 0
