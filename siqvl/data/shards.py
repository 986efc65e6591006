"""Write prepared rows as parquet shards, and read them again."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from pathlib import Path
from typing import IO, TYPE_CHECKING

import pyarrow as pa
import pyarrow.parquet as pq

from siqvl.data.manifest import Manifest, Shard
from siqvl.data.schema import RowKind, features
from siqvl.errors import UserError
from siqvl.files import DigestedFile, file_sha256

if TYPE_CHECKING:
    from datasets import Dataset

#: Up to this size shards are read into memory; larger ones go through the Arrow cache of
#: `datasets`, which maps a decoded copy from disk.
IN_MEMORY_BYTES = 512 * 2**20
#: Small row groups: a viewer shows the first rows without reading the whole shard, and a writer
#: holds no more than one of them.
GROUP_ROWS = 500
GROUP_BYTES = 16 * 2**20
#: The leaf column that holds pictures: PNG and JPEG, which no codec makes smaller.
PICTURES = "images.list.element.bytes"
#: A picture that many rows of a row group share is written once. Above this size it is not; a row
#: group is as large only where a single row is.
DICTIONARY_BYTES = 2 * GROUP_BYTES


class ShardWriter:
    """Writes `part-00000.parquet` …, each with a number of rows.

    Their row groups depend on the rows alone, not on the tables in which they come.
    """

    def __init__(self, folder: Path, kind: RowKind, rows_per_shard: int) -> None:
        folder.mkdir(parents=True)
        self.folder = folder
        self.shards: list[Shard] = []
        self._schema = features(kind).arrow_schema
        self._rows_per_shard = rows_per_shard
        self._file: DigestedFile | None = None
        self._parquet: pq.ParquetWriter | None = None
        self._waiting: list[pa.Table] = []  # rows of the row group that is not full yet
        self._group_rows = self._group_bytes = self._shard_rows = 0

    def write(self, rows: pa.Table, stored_bytes: list[int]) -> None:
        """Add rows, with the size of each."""
        start = 0
        for index, size in enumerate(stored_bytes):
            self._group_rows += 1
            self._group_bytes += size
            full = self._shard_rows + self._group_rows == self._rows_per_shard
            if full or self._group_rows == GROUP_ROWS or self._group_bytes >= GROUP_BYTES:
                self._waiting.append(rows.slice(start, index + 1 - start))
                start = index + 1
                self._flush()
            if full:
                self._close()
        if start < len(rows):
            self._waiting.append(rows.slice(start))

    def _flush(self) -> None:
        """Write a row group."""
        if self._parquet is None:
            self._file = DigestedFile(
                self.folder / f"part-{len(self.shards):05d}.parquet", hashlib.sha256()
            )
            self._parquet = parquet_writer(self._file, self._schema)
        group = pa.concat_tables(self._waiting)
        self._parquet.write_table(group, row_group_size=len(group))
        self._shard_rows += len(group)
        self._waiting, self._group_rows, self._group_bytes = [], 0, 0

    def _close(self) -> None:
        if self._waiting:
            self._flush()
        if self._parquet is not None and self._file is not None:
            self._parquet.close()
            self._file.close()
            name, size = self._file.path.name, self._file.tell()
            digest = self._file.digest
            self.shards.append(Shard(name=name, rows=self._shard_rows, bytes=size, sha256=digest))
            self._file, self._parquet, self._shard_rows = None, None, 0

    def __enter__(self) -> ShardWriter:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is None:
            self._close()
        elif self._parquet is not None and self._file is not None:
            self._parquet.close()
            self._file.close()


def parquet_writer(where: Path | IO[bytes] | DigestedFile, schema: pa.Schema) -> pq.ParquetWriter:
    """Writes pictures as they are, each once a row group, and all else compressed."""
    leaves = [leaf for column in schema for leaf in _leaves(column.name, column.type)]
    others = [leaf for leaf in leaves if leaf != PICTURES]
    return pq.ParquetWriter(
        where,
        schema,
        compression=dict.fromkeys(leaves, "none") | dict.fromkeys(others, "zstd"),
        write_statistics=others,
        dictionary_pagesize_limit=DICTIONARY_BYTES,
    )


def _leaves(name: str, kind: pa.DataType) -> Iterator[str]:
    """Names of the columns of a parquet file that one of a table becomes."""
    if pa.types.is_list(kind):
        yield from _leaves(f"{name}.list.element", kind.value_type)
    elif pa.types.is_struct(kind):
        for part in kind:
            yield from _leaves(f"{name}.{part.name}", part.type)
    else:
        yield name


def described_shard(path: Path, rows: int) -> Shard:
    """A file that was written, as the manifest names it."""
    size = path.stat().st_size
    return Shard(name=path.name, rows=rows, bytes=size, sha256=file_sha256(path))


def load_prepared(
    path: str | Path, kind: RowKind, *, verify: bool = True
) -> tuple[Dataset, Manifest]:
    """The rows of a prepared folder, and its manifest.

    Args:
        path: folder that `prepare` wrote.
        kind: the rows that the caller can use.
        verify: compare the checksum of every shard; without it only its size.

    Raises:
        UserError: no manifest, other rows than wanted, or a shard that is missing or altered.
    """
    from datasets import Dataset, DatasetInfo

    path, kind = Path(path), RowKind(kind)
    manifest = Manifest.read(path)
    if manifest.kind is not kind:
        raise UserError(f"{path} holds {manifest.kind} rows, but {kind} rows are needed here")
    files = [
        checked_shard(path / "shards" / shard.name, shard, verify) for shard in manifest.shards
    ]
    columns = features(kind)
    if sum(shard.bytes for shard in manifest.shards) > IN_MEMORY_BYTES:
        names = [str(file) for file in files]
        return Dataset.from_parquet(names, features=columns), manifest
    table = pa.concat_tables(pq.read_table(file, schema=columns.arrow_schema) for file in files)
    dataset = Dataset(table, info=DatasetInfo(features=columns), fingerprint=manifest.fingerprint)
    return dataset, manifest


def checked_shard(file: Path, shard: Shard, verify: bool) -> Path:
    """The file, if it is as the manifest says.

    Raises:
        UserError: it is missing or was altered.
    """
    if not file.is_file():
        raise UserError(f"{file} is missing; prepare the data again")
    if file.stat().st_size != shard.bytes or (verify and file_sha256(file) != shard.sha256):
        raise UserError(f"{file} was altered after it was prepared; prepare the data again")
    return file
