"""Rows of a published table: a hub data set, streamed, or local parquet, JSON lines or CSV files.

Local folders look as they do on the hub: files at the top are one data set, sub-folders its
subsets; a file belongs to the split its name begins with (`validation-00000-of-00002.parquet`) or
its folder is named after, and to `train` when neither says so.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any

from siqvl.data.sources.base import label, require_split, require_subsets
from siqvl.errors import UserError
from siqvl.recipe import Source

Record = dict[str, Any]

ENDINGS = (".parquet", ".jsonl", ".csv")
SPLIT_NAMES = ("train", "validation", "valid", "val", "dev", "test", "testdev", "challenge")
HUB_ID = re.compile(r"[\w.-]+(/[\w.-]+)?")


def check_table(source: Source) -> None:
    """Raise UserError unless the path, subsets and split are there."""
    if source.path is None:
        raise UserError(f"{label(source)} needs a `path`: a hub id, a folder or a file")
    if not is_local(source):
        _check_hub(source)
        return
    known = local_subsets(Path(source.path))
    require_subsets(source, known)
    everything = [file for subset in subsets_of(source) for file in _tables(source, subset)]
    if not everything:
        endings = ", ".join(ENDINGS)
        raise UserError(f"{label(source)}: {source.path} holds no table ({endings})")
    root = Path(source.path)
    require_split(source, sorted({split_of(file, root) for file in everything}))


def is_local(source: Source) -> bool:
    """Whether the path is a place on this machine, which then has to exist.

    Raises:
        UserError: it looks like a place on this machine, but nothing is there.
    """
    path = Path(source.path or "")
    if path.exists():
        return True
    if HUB_ID.fullmatch(source.path or "") and not path.suffix.endswith(ENDINGS):
        return False
    raise UserError(f"{label(source)}: {path} does not exist; correct `path`")


def subsets_of(source: Source) -> list[str | None]:
    """The subsets to read; [None] when the data set has none."""
    if source.subsets:
        return list(source.subsets)
    if is_local(source):
        return list(local_subsets(Path(str(source.path)))) or [None]
    from datasets import get_dataset_config_names

    return get_dataset_config_names(str(source.path), revision=source.revision) or [None]


def local_subsets(path: Path) -> list[str]:
    """Sub-folders with tables in them."""
    if not path.is_dir() or any(file.suffix in ENDINGS for file in path.iterdir()):
        return []
    return sorted(
        folder.name
        for folder in path.iterdir()
        if folder.is_dir()
        and folder.name not in (*SPLIT_NAMES, "data")
        and any(file.suffix in ENDINGS for file in folder.rglob("*"))
    )


def split_of(file: Path, root: Path) -> str:
    """The split that a file's name, or its folder's below the root, says it belongs to."""
    first = re.split(r"[-_.]", file.stem)[0]
    if first in SPLIT_NAMES:
        return first
    inner = file.parent.name if file.parent != root else ""
    return inner if inner in SPLIT_NAMES else "train"


def records(source: Source, subset: str | None) -> Iterator[tuple[Record, Path | None]]:
    """Published rows of a subset with the folder that relative paths in them start from."""
    if not is_local(source):
        yield from ((record, None) for record in _hub(source, subset))
        return
    for file in _tables(source, subset):
        if split_of(file, Path(str(source.path))) == source.split:
            for record in _read(file):
                yield record, file.parent


def interleaved(streams: list[Iterator[Any]]) -> Iterator[Any]:
    """One item of each stream in turn, so that the first rows are of all subsets."""
    while streams:
        alive = []
        for stream in streams:
            for item in islice(stream, 1):
                yield item
                alive.append(stream)
        streams = alive


def columns(source: Source) -> list[str]:
    """Columns of the first row of a data set; empty when it has no rows."""
    for record, _ in islice(records(source, subsets_of(source)[0]), 1):
        return list(record)
    return []


def image_value(value: Any, folder: Path | None) -> Any:
    """Encoded bytes of a published image; a path whose file is missing stays a path."""
    if isinstance(value, dict):
        return value["bytes"] if value.get("bytes") else image_value(value.get("path"), folder)
    if isinstance(value, str) and folder is not None and (folder / value).is_file():
        return (folder / value).read_bytes()
    return value


def _tables(source: Source, subset: str | None) -> list[Path]:
    path = Path(str(source.path)) / (subset or "")
    if path.is_file():
        return [path]
    return sorted(file for file in path.rglob("*") if file.suffix in ENDINGS)


def _read(file: Path) -> Iterator[Record]:
    try:
        if file.suffix == ".parquet":
            import pyarrow.parquet as pq

            with pq.ParquetFile(file) as table:
                for batch in table.iter_batches(batch_size=64):
                    yield from batch.to_pylist()
        elif file.suffix == ".jsonl":
            import json

            with open(file, encoding="utf-8") as lines:
                yield from (json.loads(line) for line in lines if line.strip())
        else:
            import csv

            with open(file, encoding="utf-8", newline="") as lines:
                yield from csv.DictReader(lines)
    except (OSError, ValueError) as error:  # pyarrow's and json's errors are ValueErrors
        raise UserError(f"{file} cannot be read: {' '.join(str(error).split())}") from None


def _check_hub(source: Source) -> None:
    from datasets import get_dataset_config_names, get_dataset_split_names

    path = str(source.path)
    try:
        if source.subsets:
            require_subsets(source, get_dataset_config_names(path, revision=source.revision))
        subset = source.subsets[0] if source.subsets else subsets_of(source)[0]
        require_split(source, get_dataset_split_names(path, subset, revision=source.revision))
    except UserError:
        raise
    except Exception as error:  # offline, unknown, private, gated: each its own exception
        raise UserError(
            f"{label(source)}: hub data set {path} cannot be reached "
            f"({type(error).__name__}: {' '.join(str(error).split())[:200]}); correct `path`, "
            "log in with `hf auth login`, or give a local folder"
        ) from None


def _hub(source: Source, subset: str | None) -> Iterator[Record]:
    from datasets import load_dataset

    stream = load_dataset(
        str(source.path), subset, split=source.split, streaming=True, revision=source.revision
    )
    yield from stream.decode(False)  # encoded bytes are checked, then stored as they are
