"""One file of published rows: parquet, JSON lines, JSON, CSV, TSV or a tar, also gzipped.

Rows come unread: each is a function that reads it, so that those passed over are neither parsed
nor, in parquet, loaded. What cannot be parsed is one `DamagedRecord`; a file that cannot be read on
is a `UserError`.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from siqvl.data.sources.formats.doubles import with_doubles
from siqvl.data.sources.formats.json_file import (
    first_character,
    holds_lines,
    holds_rows_by_id,
    json_lines,
    json_rows,
)
from siqvl.data.sources.formats.record import (
    BROKEN,
    DamagedRecord,
    Record,
    Unread,
    shown,
    unreadable,
)
from siqvl.data.sources.formats.separated import separated_rows
from siqvl.data.sources.formats.tar_shards import count_tar_rows, tar_rows
from siqvl.data.sources.formats.text_file import LFS_POINTER, head_of, is_named
from siqvl.errors import UserError

ENDINGS = (".parquet", ".jsonl", ".json", ".csv", ".tsv", ".tar")
BATCH = 64  # rows of a parquet file that are in memory at a time


def has_ending(name: str) -> bool:
    """Whether a file is named like a table."""
    return is_named(Path(name), *ENDINGS)


def is_table(file: Path) -> bool:
    """Whether a file in a folder is a table, whatever else lies there.

    JSON is one if it is a list or has one object a line; a tar may be a folder of pictures.
    """
    if not has_ending(file.name) or is_named(file, ".tar") or not file.is_file():
        return False
    return not is_named(file, ".json") or first_character(file) == "[" or holds_lines(file)


def tables_among(files: Iterable[Path]) -> list[Path]:
    """The tables among the files of a data set, sorted.

    An object of objects may hold rows by their ids or be about a data set, and a tar may hold rows
    or only pictures. So the former are tables only where nothing else is (`is_table`), and the
    latter where there are none of the former either.
    """
    named = sorted(file for file in files if has_ending(file.name) and file.is_file())
    if tables := [file for file in named if is_table(file)]:
        return tables
    objects = [file for file in named if is_named(file, ".json") and holds_rows_by_id(file)]
    return objects or [file for file in named if is_named(file, ".tar")]


def unread_records(file: Path, only: Sequence[str] | None = None) -> Iterator[Unread]:
    """The rows of a file in their order; each is to be called to be read.

    Args:
        only: columns that are enough; a file that is stored by column gives no others.

    Raises:
        UserError: the file is damaged as a whole, or from some place on.
    """
    try:
        if head_of(file, len(LFS_POINTER)) == LFS_POINTER:
            raise UserError(f"{file} is a Git LFS pointer, not the file itself: `git lfs pull`")
        if not file.stat().st_size and not file.name.lower().endswith((".json", ".jsonl")):
            raise unreadable(file, "it is empty, without a byte")
        if is_named(file, ".parquet"):
            yield from _parquet(file, only)
        elif is_named(file, ".json"):
            yield from json_rows(file)
        elif is_named(file, ".jsonl"):
            yield from json_lines(file)
        elif is_named(file, ".tar"):
            yield from tar_rows(file)
        else:
            yield from separated_rows(file, "\t" if is_named(file, ".tsv") else ",")
    except (*BROKEN, RecursionError) as error:
        raise unreadable(file, error) from None


def header_of(file: Path) -> list[str]:
    """The columns that a file names apart from its rows; empty where it does not, as JSON.

    Raises:
        UserError: it cannot be read, or names a column twice.
    """
    if is_named(file, ".csv", ".tsv"):
        first = next(unread_records(file), None)
        try:
            return list(first()) if first else []
        except DamagedRecord:
            return []
    if not is_named(file, ".parquet"):
        return []
    try:
        return list(pq.read_schema(file).names)
    except BROKEN as error:
        raise unreadable(file, error) from None


def count_records(file: Path) -> int:
    """How many rows a file has; parquet says so in its footer, of others they are counted."""
    if is_named(file, ".tar"):
        return count_tar_rows(file)
    if not is_named(file, ".parquet"):
        return sum(1 for _ in unread_records(file))
    try:
        return pq.read_metadata(file).num_rows
    except BROKEN as error:
        raise unreadable(file, error) from None


def table_row(table: pa.Table | pa.RecordBatch, index: int) -> Record:
    """One row of an Arrow table."""
    try:
        return table.slice(index, 1).to_pylist()[0]
    except ValueError as error:  # text that is not UTF-8
        raise DamagedRecord(shown(error)) from None


class _RowGroup:
    """Rows of one row group, a batch of them in memory, none before the first is asked for."""

    def __init__(
        self, table: pq.ParquetFile, number: int, file: Path, only: Sequence[str] | None
    ) -> None:
        self._table, self._number, self._file = table, number, file
        names = table.schema_arrow.names
        self._columns = None if only is None else [name for name in names if name in only]
        self._batches: Iterator[pa.RecordBatch] = iter(())
        self._batch: pa.RecordBatch | None = None
        self._first = 0  # row of the group that the batch begins with

    def row(self, index: int) -> Record:
        try:
            if self._batch is None or index < self._first:
                self._batches = map(
                    with_doubles,
                    self._table.iter_batches(
                        BATCH, row_groups=[self._number], columns=self._columns
                    ),
                )
                self._batch, self._first = next(self._batches), 0
            while index >= self._first + self._batch.num_rows:
                self._first += self._batch.num_rows
                self._batch = next(self._batches)
        except BROKEN as error:
            raise unreadable(self._file, error) from None
        return table_row(self._batch, index - self._first)


def _parquet(file: Path, only: Sequence[str] | None) -> Iterator[Unread]:
    table = pq.ParquetFile(file)
    names = Counter(table.schema_arrow.names)
    if twice := [name for name, count in names.items() if count > 1]:
        raise UserError(f"{file} has two columns `{twice[0]}`; rename one of them")
    for number in range(table.num_row_groups):
        group = _RowGroup(table, number, file, only)
        for index in range(table.metadata.row_group(number).num_rows):
            yield partial(group.row, index)


def parsed(value: Any) -> Any:
    """Returns the list or object whose JSON is published as a text; anything else as it is."""
    if isinstance(value, str) and value.lstrip()[:1] in ("[", "{"):
        try:
            return json.loads(value)
        except (ValueError, RecursionError):
            return value
    return value
