"""Rows of a published table: a hub data set, streamed, or local files (`table_file` says which).

Local folders look as they do on the hub: files at the top are one data set, sub-folders its
subsets; a file belongs to the split its name begins with (`validation-00000-of-00002.parquet`) or
its folder is named after, and to `train` when neither says so.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

from siqvl.data.sources.base import label, require_split, require_subsets
from siqvl.data.sources.reading.picture_fields import Beside, Find
from siqvl.data.sources.reading.table_file import (
    BATCH,
    ENDINGS,
    DamagedRecord,
    Unread,
    count_records,
    has_ending,
    is_table,
    table_row,
    unread_records,
)
from siqvl.errors import UserError
from siqvl.recipe import Source

SPLIT_NAMES = ("train", "validation", "valid", "val", "dev", "test", "testdev", "challenge")
HUB_ID = re.compile(r"[\w.-]+(/[\w.-]+)?")
LOOKED_AT = 100  # rows whose columns are looked at: JSON leaves out those that are empty


def check_table(source: Source, official: str = "") -> None:
    """Raise UserError unless the path, subsets and split are there.

    Args:
        official: the files that could be there in place of tables, for the message.
    """
    if source.path is None:
        raise UserError(f"{label(source)} needs a `path`: a hub id, a folder or a file")
    if not is_local(source):
        _check_hub(source)
        return
    root = Path(source.path)
    require_subsets(source, local_subsets(root))
    everything = [file for subset in subsets_of(source) for file in _tables(source, subset)]
    if not everything:
        endings = ", ".join(ENDINGS)
        none = f"neither {official} nor a" if official else "no"
        raise UserError(f"{label(source)}: {source.path} holds {none} table ({endings})")
    require_split(source, sorted({split_of(file, root) for file in everything}))


def is_local(source: Source) -> bool:
    """Whether the path is a place on this machine, which then has to exist.

    Raises:
        UserError: it looks like a place on this machine, but nothing is there.
    """
    path = Path(source.path or "")
    if path.exists():
        return True
    if HUB_ID.fullmatch(source.path or "") and not has_ending(path.name):
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
    if not path.is_dir() or any(is_table(file) for file in path.iterdir()):
        return []
    return sorted(
        folder.name
        for folder in path.iterdir()
        if folder.is_dir()
        and folder.name not in (*SPLIT_NAMES, "data")
        and any(is_table(file) for file in folder.rglob("*"))
    )


def split_of(file: Path, root: Path) -> str:
    """The split that a file's name, or its folder's below the root, says it belongs to."""
    first = re.split(r"[-_.]", file.stem)[0]
    if first in SPLIT_NAMES:
        return first
    inner = file.parent.name if file.parent != root else ""
    return inner if inner in SPLIT_NAMES else "train"


def records(source: Source, subset: str | None) -> Iterator[tuple[Unread, Find | None]]:
    """Published rows of a subset, unread, each with what reads the pictures that it names."""
    if not is_local(source):
        yield from ((read, None) for read in _hub(source, subset))
        return
    path = Path(str(source.path))
    root = path.parent if path.is_file() else path
    for file in split_tables(source, subset):
        find = Beside(file.parent, root).find
        yield from ((read, find) for read in unread_records(file))


def known_size(source: Source) -> int | None:
    """The number of rows of a local data set; None on the hub, where cards may be out of date."""
    if not is_local(source):
        return None
    files = (file for subset in subsets_of(source) for file in split_tables(source, subset))
    return sum(count_records(file) for file in files)


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
    """Columns of the first rows of a data set; empty when it has no rows."""
    found: dict[str, None] = {}
    for read, _ in islice(records(source, subsets_of(source)[0]), LOOKED_AT):
        try:
            found |= dict.fromkeys(read())
        except DamagedRecord:
            continue
        if not is_local(source):
            break  # all rows of a hub data set have the same columns
    return list(found)


def require_columns(source: Source, needed: tuple[str, ...]) -> None:
    """Raise UserError unless the first rows have all these columns."""
    found = columns(source)
    for column in needed:
        if column not in found:
            raise UserError(
                f"{label(source)}: {source.path} has no column `{column}`; "
                f"it has {', '.join(found) or 'no rows'}"
            )


def split_tables(source: Source, subset: str | None) -> list[Path]:
    """The files of a subset that belong to the source's split."""
    root = Path(str(source.path))
    return [file for file in _tables(source, subset) if split_of(file, root) == source.split]


def _tables(source: Source, subset: str | None) -> list[Path]:
    path = Path(str(source.path)) / (subset or "")
    if path.is_file():
        return [path] if has_ending(path.name) else []
    return sorted(filter(is_table, path.rglob("*")))


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
            f"{label(source)}: hub data set {path} cannot be reached ({_named(error)}); correct "
            "`path`, log in with `hf auth login`, or give a local folder"
        ) from None


def _hub(source: Source, subset: str | None) -> Iterator[Unread]:
    """A stream of Arrow batches; the rows of those passed over are never made Python objects.

    A bad read is repeated by `datasets` (20 times, 5 s apart) before it ends here.
    """
    from datasets import load_dataset

    path, number = str(source.path), 0
    try:
        stream = load_dataset(
            path, subset, split=source.split, streaming=True, revision=source.revision
        )
        # pictures stay encoded: they are checked, then stored as they are
        for batch in stream.decode(False).with_format("arrow").iter(batch_size=BATCH):
            for index in range(batch.num_rows):
                number += 1
                yield partial(table_row, batch, index)
    except Exception as error:  # the hub, the network, a damaged file: each its own exception
        raise UserError(
            f"{label(source)}: hub data set {path} broke off after {number} rows "
            f"({_named(error)}); run it again, or give a local folder"
        ) from None


def _named(error: Exception) -> str:
    return f"{type(error).__name__}: {' '.join(str(error).split())[:200]}"
