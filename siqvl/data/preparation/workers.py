"""Check the rows of sources, piece by piece, in this process or in several."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from dataclasses import dataclass
from itertools import chain, count, groupby, islice
from pathlib import Path
from typing import Any, TypeVar

from siqvl.data import sources as source_registry
from siqvl.data.preparation.checks import Checked, check_row
from siqvl.data.preparation.pieces import BLOCK, Summary, end_file, write_json, write_piece
from siqvl.data.processes import processes_with, shared_out, started
from siqvl.data.schema import Row, RowKind
from siqvl.errors import UserError
from siqvl.recipe import DataPrep, Source

CHUNK = 16  # rows of a stream that are handed to a process at a time
AHEAD = 4  # chunks or pieces of each process that may wait for one before them

Result = TypeVar("Result")


@dataclass
class Reader:
    """Reads blocks of a source in ascending order, and nothing of those that are passed over."""

    source: Source
    kind: RowKind
    seed: int

    def __post_init__(self) -> None:
        self._unread = source_registry.unread(self.source, self.kind, self.seed)
        self._position = 0

    def rows(self, block: int) -> Iterator[Row]:
        """The rows of a block; fewer than BLOCK where the source ends in it."""
        if block * BLOCK < self._position:
            self.__post_init__()
        for _ in islice(self._unread, block * BLOCK - self._position):
            self._position += 1
        for read in islice(self._unread, BLOCK):
            self._position += 1
            yield read()

    def skip(self) -> int:
        """Pass over a block; returns how many rows were there."""
        passed = sum(1 for _ in islice(self._unread, BLOCK))
        self._position += passed
        return passed


class Checker:
    """Checks rows, and writes pieces of sources whose size is known (the work of one process).

    Attributes:
        choices_are: how the answers of each source's rows with choices are read. It is decided
            once, by all rows, before any piece is made, and handed to every process.
    """

    def __init__(
        self, folder: Path, sources: list[Source], kind: RowKind, seed: int, data: DataPrep
    ) -> None:
        self.folder, self.sources, self.kind = folder, sources, kind
        self.seed, self.data = seed, data
        self.choices_are = [source_registry.choices_are(source) for source in sources]
        self._open: tuple[int, Reader] | None = None

    def source(self, number: int) -> Source:
        """A source with how its answers are read, so that nobody looks at all of its rows again."""
        return source_registry.read_as(self.sources[number], self.choices_are[number])

    def reader(self, number: int) -> Reader:
        """A new reader of a source."""
        return Reader(self.source(number), self.kind, self.seed)

    def __getstate__(self) -> dict[str, Any]:
        """What another process is given: it opens its own reader."""
        return self.__dict__ | {"_open": None}

    def piece(self, number: int, block: int, rows: int) -> Summary:
        """Read, check and write a block that has a number of rows.

        Raises:
            UserError: the source gives fewer of them.
        """
        if self._open is None or self._open[0] != number:
            self._open = number, self.reader(number)
        raw = self._open[1].rows(block)
        checked = (check_row(row, self.kind, self.data) for row in raw)
        summary = write_piece(self.folder, number, block, checked, self.kind)
        if summary.rows != rows:
            raise changed(self.sources[number])
        return summary

    def chunk(self, rows: list[tuple[int, Row]]) -> list[tuple[int, Checked]]:
        """Check some rows that come with the number of their block."""
        return [(block, check_row(row, self.kind, self.data)) for block, row in rows]


def changed(source: Source) -> UserError:
    """What to raise when a source is no longer what it was."""
    return UserError(
        f"source `{source.kind}` ({source.path or 'no path'}) changed while it was being "
        "prepared; prepare it again"
    )


class Workers:
    """Runs methods of a `Checker`, results in order, with a few of them in flight.

    This process is one of `data.processes`: it works too, and begins before the others have
    started. They start when the block is entered.
    """

    def __init__(self, checker: Checker) -> None:
        self.checker = checker
        self._others = checker.data.processes - 1
        self._pool: ProcessPoolExecutor | None = None
        self._ready: Future[None] = Future()

    def map(
        self, method: Callable[..., Result], arguments: Iterable[tuple[Any, ...]]
    ) -> Iterator[Result]:
        """`method(checker, *each)` of the arguments, which are asked for only a little ahead.

        Raises:
            UserError: what a worker raised, or that one of them died.
        """
        if self._pool is None:
            yield from (method(self.checker, *each) for each in arguments)
            return
        yield from shared_out(
            self._pool,
            self._ready,
            self.checker,
            method,
            arguments,
            ahead=AHEAD * self.checker.data.processes,
            workers=self._others,
        )

    def __enter__(self) -> Workers:
        if self._others:
            self._pool = processes_with(self.checker, self._others)
            self._ready = started(self._pool)
        return self

    def __exit__(self, *_: object) -> None:
        if self._pool is not None:
            self._pool.shutdown(cancel_futures=True)


def stream_pieces(
    workers: Workers, number: int, wanted: Callable[[int], bool]
) -> Iterator[Summary]:
    """Write the wanted pieces of a source whose size is not known, and at its end the size.

    Only this process reads such a source, which may come over a network; the others check.
    """
    checker = workers.checker
    reader = checker.reader(number)
    total = 0

    def raw() -> Iterator[tuple[int, Row]]:
        nonlocal total
        for block in count():
            before = total
            if wanted(block):
                for row in reader.rows(block):
                    total += 1
                    yield block, row
            else:
                total += reader.skip()
            if total - before < BLOCK:
                return

    rows = raw()
    chunks = iter(lambda: list(islice(rows, CHUNK)), [])
    checked = chain.from_iterable(workers.map(Checker.chunk, ((chunk,) for chunk in chunks)))
    for block, piece in groupby(checked, key=lambda pair: pair[0]):
        found = (checked for _, checked in piece)
        yield write_piece(checker.folder, number, block, found, checker.kind)
    write_end(checker, number, total)


def write_end(checker: Checker, number: int, rows: int) -> None:
    """Say that all pieces of a source are there, how many rows it has, and how they were read."""
    about = {"rows": rows, "choices_are": checker.choices_are[number]}
    write_json(end_file(checker.folder, number), about)
