"""Write prepared rows as parquet shards, and read them again."""

from __future__ import annotations

import hashlib
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING

from siqvl.data.manifest import Manifest, Shard
from siqvl.data.schema import Row, RowKind, features
from siqvl.errors import UserError

if TYPE_CHECKING:
    from datasets import Dataset

#: Up to this size shards are read into memory; larger ones go through the Arrow cache of
#: `datasets`, which maps a decoded copy from disk.
IN_MEMORY_BYTES = 512 * 2**20


class ShardWriter:
    """Writes `part-00000.parquet` …, each with a number of rows."""

    def __init__(self, folder: Path, kind: RowKind, rows_per_shard: int) -> None:
        folder.mkdir(parents=True)
        self.folder = folder
        self.shards: list[Shard] = []
        self._schema = features(kind).arrow_schema
        self._rows_per_shard = rows_per_shard
        self._rows: list[Row] = []

    def write(self, row: Row) -> None:
        self._rows.append(row)
        if len(self._rows) == self._rows_per_shard:
            self._flush()

    def _flush(self) -> None:
        import pyarrow as pa
        import pyarrow.parquet as pq

        path = self.folder / f"part-{len(self.shards):05d}.parquet"
        table = pa.Table.from_pylist(self._rows, schema=self._schema)
        # small row groups: a viewer shows the first rows without reading the whole shard
        pq.write_table(table, path, row_group_size=500, compression="zstd")
        self.shards.append(
            Shard(
                name=path.name,
                rows=len(self._rows),
                bytes=path.stat().st_size,
                sha256=file_sha256(path),
            )
        )
        self._rows = []

    def __enter__(self) -> ShardWriter:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if kind is None and self._rows:
            self._flush()


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
        _checked_shard(path / "shards" / shard.name, shard, verify) for shard in manifest.shards
    ]
    columns = features(kind)
    if sum(shard.bytes for shard in manifest.shards) > IN_MEMORY_BYTES:
        names = [str(file) for file in files]
        return Dataset.from_parquet(names, features=columns), manifest
    import pyarrow as pa
    import pyarrow.parquet as pq

    table = pa.concat_tables(pq.read_table(file, schema=columns.arrow_schema) for file in files)
    dataset = Dataset(table, info=DatasetInfo(features=columns), fingerprint=manifest.fingerprint)
    return dataset, manifest


def _checked_shard(file: Path, shard: Shard, verify: bool) -> Path:
    if not file.is_file():
        raise UserError(f"{file} is missing; prepare the data again")
    if file.stat().st_size != shard.bytes or (verify and file_sha256(file) != shard.sha256):
        raise UserError(f"{file} was altered after it was prepared; prepare the data again")
    return file


def file_sha256(path: Path) -> str:
    """sha256 of a file's content."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
