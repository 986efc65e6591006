"""Which pieces of which sources a run, or one of several side by side, has to make."""

from __future__ import annotations

import json
from collections.abc import Container, Iterator
from functools import partial

from siqvl.data import sources as source_registry
from siqvl.data.preparation.pieces import BLOCK, Summary, end_file
from siqvl.data.preparation.workers import Checker, Workers, stream_pieces, write_end


class Plan:
    """Which pieces of a checker's sources are still to be made for a shard."""

    def __init__(
        self, checker: Checker, shard: int, shards: int, present: Container[tuple[int, int]]
    ) -> None:
        self._sizes = [
            source_registry.size(source, checker.kind, checker.seed) for source in checker.sources
        ]
        self._shard, self._shards = shard, shards
        self._folder, self._present = checker.folder, present

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

    def _mine(self, number: int, size: int) -> list[int]:
        return [block for block in range(-(-size // BLOCK)) if self._is_mine(number, block)]

    def _is_mine(self, number: int, block: int) -> bool:
        """Sources take turns too, so that many small ones spread over the shards."""
        return (number + block) % self._shards == self._shard

    def _wanted(self, number: int, block: int) -> bool:
        return self._is_mine(number, block) and (number, block) not in self._present

    def _is_complete(self, number: int) -> bool:
        """Whether an earlier run came to the end of a stream, and its pieces are still there."""
        end = end_file(self._folder, number)
        if not end.is_file():
            return False
        size = json.loads(end.read_text(encoding="utf-8"))["rows"]
        return all((number, block) in self._present for block in self._mine(number, size))
