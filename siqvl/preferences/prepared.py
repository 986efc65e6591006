"""Checked rows -> prepared data, by the steps that `siqvl.data.preparation.prepare` ends with."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from itertools import chain, count, islice
from pathlib import Path
from tempfile import TemporaryDirectory

from siqvl.data.manifest import Manifest
from siqvl.data.preparation.checks import Checked
from siqvl.data.preparation.distinct_pictures import HeldOut
from siqvl.data.preparation.merge import merge_pieces
from siqvl.data.preparation.pieces import BLOCK, DESCRIPTION, end_file, write_json, write_piece
from siqvl.data.preparation.workers import CHUNK, Checker, Workers
from siqvl.data.schema import Row, RowKind
from siqvl.data.shards import load_prepared
from siqvl.recipe import DataPrep, Source

KIND = RowKind.PREFERENCE


def write_prepared(
    rows: Sequence[tuple[Source, Iterable[Checked]]],
    out: Path,
    *,
    data: DataPrep,
    seed: int,
    benchmarks: HeldOut | None = None,
) -> Manifest:
    """Writes the preference rows of several sources, in their order, to the folder `out`.

    Repeats, pictures of benchmarks and bad rows are dealt with as `prepare` does.

    Args:
        rows: every source with its checked rows, which are asked for one at a time.
        benchmarks: with whose pictures they are compared.

    Raises:
        UserError: as `merge_pieces` does; `out` is untouched then.
    """
    out.parent.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory(prefix=f".{out.name}.pieces-", dir=out.parent) as folder:
        pieces = Path(folder)
        for number, (_, checked) in enumerate(rows):
            _write_source(pieces, number, checked)
        write_json(pieces / DESCRIPTION, {"key": "", "options": ""})  # nothing is resumed here
        sources = [source for source, _ in rows]
        return merge_pieces(
            [pieces], sources, KIND, out, data=data, seed=seed, benchmarks=benchmarks
        )


def _write_source(folder: Path, number: int, checked: Iterable[Checked]) -> None:
    rows, total = iter(checked), 0
    for block in count():
        found = write_piece(folder, number, block, islice(rows, BLOCK), KIND)
        total += found.rows
        if found.rows < BLOCK:
            break
    write_json(end_file(folder, number), {"rows": total})


class PreparedRows:
    """The rows of a prepared folder, source by source, to be written anew with others.

    Raises:
        UserError: the folder holds no prepared preference rows, or altered ones.
    """

    def __init__(self, folder: Path) -> None:
        self._dataset, self.manifest = load_prepared(folder, KIND)

    def of_sources(self, data: DataPrep, seed: int) -> list[tuple[Source, Iterator[Checked]]]:
        """Gives each source with its rows, checked again; they are to be read in this order."""
        rows = self._checked(data, seed)
        *sizes, _ = self.manifest.rows_of_sources
        # the last one reads to the end, where the worker processes are let go
        parts = [*(islice(rows, size) for size in sizes), rows]
        return list(zip(self.manifest.sources, parts, strict=True))

    def _checked(self, data: DataPrep, seed: int) -> Iterator[Checked]:
        with Workers(Checker(Path(), [], KIND, seed, data)) as workers:
            chunks = (([(0, row) for row in chunk],) for chunk in self._chunks())
            for _, checked in chain.from_iterable(workers.map(Checker.chunk, chunks)):
                yield checked

    def _chunks(self) -> Iterator[list[Row]]:
        """Rows with their pictures encoded, as they are stored."""
        for table in self._dataset.with_format("arrow").iter(batch_size=CHUNK):
            yield [
                {**row, "images": [image["bytes"] for image in row["images"]]}
                for row in table.to_pylist()
            ]
