"""Which pieces of which sources a run, or one of several side by side, has to make."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from functools import partial
from itertools import chain
from pathlib import Path

from siqvl.data import sources as source_registry
from siqvl.data.preparation.pieces import BLOCK, Summary, end_file, key_of, read_end
from siqvl.data.preparation.workers import Checker, Workers, stream_pieces, write_end
from siqvl.errors import UserError


class Plan:
    """Which pieces of a checker's sources are still to be made for a shard."""

    def __init__(
        self, checker: Checker, shard: int, shards: int, present: dict[tuple[int, int], Path]
    ) -> None:
        self._sizes = [
            source_registry.size(checker.source(number), checker.kind, checker.seed)
            for number in range(len(checker.sources))
        ]
        self._shard, self._shards = shard, shards
        self._folder, self._present = checker.folder, present
        self._ends = list(self._sizes)  # rows of each source; None before its end was seen

    @property
    def rows(self) -> int | None:
        """Rows of all sources; None when a stream is among them."""
        known = [size for size in self._sizes if size is not None]
        return sum(known) if len(known) == len(self._sizes) else None

    @property
    def mine_rows(self) -> int | None:
        """Rows of this shard."""
        if self.rows is None:
            return None
        return sum(
            min(BLOCK, size - block * BLOCK)
            for number, size in enumerate(self._sizes)
            for block in self._mine(number, size or 0)
            if size is not None
        )

    def carried_out(self, workers: Workers) -> Iterator[Summary]:
        """Make the missing pieces; a source is marked as complete at its end."""
        jobs = [
            (number, block, min(BLOCK, size - block * BLOCK))
            for number, size in enumerate(self._sizes)
            if size is not None
            for block in self._mine(number, size)
            if (number, block) not in self._present
        ]
        yield from workers.map(Checker.piece, jobs)
        for number, size in enumerate(self._sizes):
            if size is not None:
                write_end(workers.checker, number, size)
            elif not self._is_complete(number):
                yield from stream_pieces(workers, number, partial(self._wanted, number))
            self._ends[number] = self._end(number)

    def in_order(self, made: Iterable[Summary]) -> Iterator[tuple[int, Path]]:
        """This shard's pieces, each with its source, as soon as those before it are there too.

        Args:
            made: what `carried_out` gives.
        """
        there, place = dict(self._present), (0, 0)
        for found in chain(made, [Summary()]):
            if found.file:
                there[key_of(found.file)] = self._folder / found.file
            while (place := self._mine_from(*place)) in there:
                yield place[0], there.pop(place)
                place = place[0], place[1] + 1
        if place[0] < len(self._ends):
            raise UserError(
                f"piece {place[1]} of source {place[0]} was removed from {self._folder} meanwhile; "
                "prepare the data again"
            )

    def _mine_from(self, number: int, block: int) -> tuple[int, int]:
        """The first piece of this shard from a place on, or the place after the last source."""
        while number < len(self._ends):
            size = self._ends[number]
            if size is not None and block * BLOCK >= size:
                number, block = number + 1, 0
            elif self._is_mine(number, block):
                break
            else:
                block += 1
        return number, block

    def _mine(self, number: int, size: int) -> list[int]:
        return [block for block in range(-(-size // BLOCK)) if self._is_mine(number, block)]

    def _is_mine(self, number: int, block: int) -> bool:
        """Sources take turns too, so that many small ones spread over the shards."""
        return (number + block) % self._shards == self._shard

    def _wanted(self, number: int, block: int) -> bool:
        return self._is_mine(number, block) and (number, block) not in self._present

    def _is_complete(self, number: int) -> bool:
        """Whether an earlier run came to the end of a stream, and its pieces are still there."""
        size = self._end(number)
        return size is not None and all(
            (number, block) in self._present for block in self._mine(number, size)
        )

    def _end(self, number: int) -> int | None:
        """Rows of a source that was read to its end."""
        there = end_file(self._folder, number).is_file()
        return read_end(self._folder, number)["rows"] if there else None
