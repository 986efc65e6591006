"""One file of published rows: parquet, JSON lines, a JSON list, CSV or TSV, also gzipped.

Rows come unread: each is a function that reads it, so that those passed over are neither parsed
nor, in parquet, loaded. What cannot be parsed is one `DamagedRecord`; a file that cannot be read on
is a `UserError`.
"""

from __future__ import annotations

import csv
import gzip
import io
import json
import zlib
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import IO, Any

import pyarrow as pa
import pyarrow.parquet as pq

from siqvl.errors import UserError, one_line

Record = dict[str, Any]
Unread = Callable[[], Record]

ENDINGS = (".parquet", ".jsonl", ".json", ".csv", ".tsv")
BATCH = 64  # rows of a parquet file that are in memory at a time
BROKEN = (OSError, ValueError, EOFError, zlib.error)  # pyarrow's and json's errors are ValueErrors
SHOWN = 120  # characters of an error or a line in a message


class DamagedRecord(Exception):
    """One published row that cannot be parsed; its text says why."""


def has_ending(name: str) -> bool:
    """Whether a file is named like a table."""
    return name.removesuffix(".gz").endswith(ENDINGS)


def is_table(file: Path) -> bool:
    """Whether a file in a folder is a table: JSON only if it is a list, the rest is metadata."""
    if not has_ending(file.name) or not file.is_file():
        return False
    return not _is_json(file) or _first_character(file) == b"["


def unread_records(file: Path, only: Sequence[str] | None = None) -> Iterator[Unread]:
    """The rows of a file in their order; each is to be called to be read.

    Args:
        only: columns that are enough; a file that is stored by column gives no others.

    Raises:
        UserError: the file is damaged as a whole, or from some place on.
    """
    name = file.name.removesuffix(".gz")
    try:
        if name.endswith(".parquet"):
            yield from _parquet(file, only)
        elif _is_json(file) and _first_character(file) == b"[":
            with _opened(file) as stream:
                yield from (partial(record, item) for item in json.load(stream))
        elif name.endswith((".json", ".jsonl")):
            with _opened(file) as stream:
                yield from (partial(_parsed, line) for line in stream if line.strip())
        else:
            yield from _separated(file, "\t" if name.endswith(".tsv") else ",")
    except (*BROKEN, RecursionError) as error:
        raise _unreadable(file, error) from None


def count_records(file: Path) -> int:
    """How many rows a file has; parquet says so in its footer, of others the lines are counted."""
    if not file.name.endswith(".parquet"):
        return sum(1 for _ in unread_records(file))
    try:
        return pq.read_metadata(file).num_rows
    except BROKEN as error:
        raise _unreadable(file, error) from None


def table_row(table: pa.Table | pa.RecordBatch, index: int) -> Record:
    """One row of an Arrow table."""
    try:
        return table.slice(index, 1).to_pylist()[0]
    except ValueError as error:  # text that is not UTF-8
        raise DamagedRecord(_shown(error)) from None


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
                self._batches = self._table.iter_batches(
                    BATCH, row_groups=[self._number], columns=self._columns
                )
                self._batch, self._first = next(self._batches), 0
            while index >= self._first + self._batch.num_rows:
                self._first += self._batch.num_rows
                self._batch = next(self._batches)
        except BROKEN as error:
            raise _unreadable(self._file, error) from None
        return table_row(self._batch, index - self._first)


def _parquet(file: Path, only: Sequence[str] | None) -> Iterator[Unread]:
    table = pq.ParquetFile(file)
    for number in range(table.num_row_groups):
        group = _RowGroup(table, number, file, only)
        for index in range(table.metadata.row_group(number).num_rows):
            yield partial(group.row, index)


def _parsed(line: bytes) -> Record:
    try:
        return record(json.loads(line.decode("utf-8-sig")))
    except (ValueError, RecursionError) as error:
        raise DamagedRecord(f"{_shown(error)}: {line[:40]!r}") from None


def record(item: Any) -> Record:
    """An item of a JSON file, which has to be an object."""
    if not isinstance(item, dict):
        raise DamagedRecord(f"expected an object, got {item!r}"[:SHOWN])
    return item


def parsed(value: Any) -> Any:
    """Returns the list or object whose JSON is published as a text; anything else as it is."""
    if isinstance(value, str) and value.lstrip()[:1] in ("[", "{"):
        try:
            return json.loads(value)
        except (ValueError, RecursionError):
            return value
    return value


def _separated(file: Path, delimiter: str) -> Iterator[Unread]:
    """Rows of a CSV; bytes that are no UTF-8 pass as lone surrogates until their row is read."""
    with (
        _opened(file) as raw,
        io.TextIOWrapper(raw, "utf-8-sig", "surrogateescape", newline="") as stream,
    ):
        lines = csv.reader(stream, delimiter=delimiter)
        header = next(lines, [])
        _refuse_surrogates(header)
        while True:
            try:
                values = next(lines)
            except StopIteration:
                return
            except csv.Error as error:
                yield partial(_refuse, _shown(error))
                continue
            if values:
                yield partial(_fields, header, values)


def _fields(header: list[str], values: list[str]) -> Record:
    if len(values) != len(header):
        raise DamagedRecord(f"{len(values)} fields, but the first line names {len(header)}")
    try:
        _refuse_surrogates(values)
    except ValueError as error:
        raise DamagedRecord(_shown(error)) from None
    return dict(zip(header, values, strict=True))


def _refuse_surrogates(values: list[str]) -> None:
    for value in values:
        value.encode()


def _refuse(reason: str) -> Record:
    raise DamagedRecord(reason)


def _opened(file: Path) -> IO[bytes]:
    return gzip.open(file) if file.name.endswith(".gz") else open(file, "rb")  # type: ignore[return-value]


def _is_json(file: Path) -> bool:
    return file.name.removesuffix(".gz").endswith(".json")


def _first_character(file: Path) -> bytes:
    """The first byte that is no space and no byte-order mark; empty when it cannot be read."""
    try:
        with _opened(file) as stream:
            return stream.read(4096).removeprefix(b"\xef\xbb\xbf").lstrip()[:1]
    except BROKEN:
        return b""


def _unreadable(file: Path, error: BaseException) -> UserError:
    return UserError(f"{file} cannot be read: {_shown(error)}; replace it with an intact copy")


def _shown(error: BaseException) -> str:
    return one_line(error)[:SHOWN]
