"""Write small files in published layouts."""

import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from siqvl.data import sources
from siqvl.data.schema import Row, RowKind
from siqvl.recipe import Source

IMAGE_TYPE = pa.struct([("bytes", pa.binary()), ("path", pa.string())])


def write_parquet(path: Path, rows: list[dict[str, Any]], **types: Any) -> None:
    """A parquet file; the types of columns as published, by keyword."""
    path.parent.mkdir(parents=True, exist_ok=True)
    schema = pa.schema(list(types.items())) if types else None
    pq.write_table(pa.Table.from_pylist(rows, schema), path)


def write_json(path: Path, content: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content), encoding="utf-8")


def read(source: Source, kind: RowKind) -> list[Row]:
    """All rows of a source, once it is checked."""
    sources.check(source, kind)
    return list(sources.rows(source, kind, seed=0))


def texts(row: Row, column: str) -> list[str]:
    return [turn["content"] for turn in row[column]]
