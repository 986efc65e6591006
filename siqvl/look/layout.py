"""How a source is laid out: its split and files, its columns, and which of them are read."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any

from siqvl.data import sources
from siqvl.data.sources.formats.record import DamagedRecord, Record
from siqvl.data.sources.reading.picture_fields import ENDINGS
from siqvl.data.sources.reading.splits import split_named
from siqvl.data.sources.reading.tabular import (
    is_local,
    local_files,
    local_splits,
    records,
    subsets_of,
)
from siqvl.data.sources.tables.choices import NAMES
from siqvl.data.sources.tables.fields import FIELDS, Fields
from siqvl.data.sources.values.cells import is_missing
from siqvl.look.looked import Column, Layout
from siqvl.recipe import Source

COLUMN_ROWS = 100  # whose columns are looked at: as many as tell which columns there are
THROUGH = 10_000  # local rows that are looked through for a condition, or how answers are read
HUB_THROUGH = 1_000  # of the hub, where rows are downloaded with their pictures
COUNT_SECONDS = 1.0  # for counting the rows of local files
SHOWN = 60  # characters of a value
#: How encoded pictures begin, as bytes and in base64.
MAGIC = (b"\x89PNG", b"\xff\xd8\xff", b"RIFF", b"GIF8", b"BM", b"II*\0", b"MM\0*")
BASE64 = ("iVBORw0KGgo", "/9j/", "data:image/")
PICTURE_FILE = re.compile(rf"\.({'|'.join(ENDINGS)})$", re.IGNORECASE)


def through(source: Source) -> int:
    """How many published rows of a source are looked through in a few seconds."""
    table = sources.published_table(source)
    return HUB_THROUGH if table is not None and not is_local(table) else THROUGH


def layout_of(source: Source, choices_are: str) -> Layout:
    """Describe a source that was checked.

    Args:
        choices_are: how answers of rows with choices were found to be read; empty without any.

    Raises:
        UserError: its files cannot be read.
    """
    table = sources.published_table(source)
    if table is None:
        return Layout(split=source.split)
    split, splits, files = source.split, dict[str, int](), list[str]()
    size, is_whole = 0, False
    if is_local(table):
        split, splits, files = _files(table)
        size, is_whole = _counted(table)
    if source.kind != "table":
        return Layout(split, splits, files, size, is_whole)
    found = [*_first_records(table)]
    columns = [_column(name, found) for name in dict.fromkeys(key for one in found for key in one)]
    mapping = _mapping(table, [column.name for column in columns])
    used = _used(table, mapping)
    return Layout(
        *(split, splits, files, size, is_whole),
        columns=columns,
        mapping=mapping,
        unused=[column.name for column in columns if column.name not in used],
        choices_are=_reading(choices_are, source),
        notes=[] if is_whole and size <= through(table) else _notes(table, choices_are),
    )


def _files(table: Source) -> tuple[str, dict[str, int], list[str]]:
    """The split that is read, how many files each split has, and the files that are read."""
    root, splits = Path(str(table.path)), local_splits(table)
    if root.is_file():  # all of it is read, whatever its name says
        return next(iter(splits), table.split), {}, [root.name]
    return (
        split_named(table.split, [*splits]),
        {name: len(files) for name, files in splits.items()},
        [file.relative_to(root).as_posix() for file in local_files(table)],
    )


def _counted(table: Source) -> tuple[int, bool]:
    """How many published rows were counted in a second, and whether these are all.

    Raises:
        UserError: so far as it came, a file is damaged as a whole.
    """
    everything, started, count = table.model_copy(update={"where": {}}), time.monotonic(), 0
    for subset in subsets_of(table):
        for _ in records(everything, subset, []):
            count += 1
            if count % 100 == 0 and time.monotonic() - started > COUNT_SECONDS:
                return count, False
    return count, True


def _first_records(table: Source) -> Iterator[Record]:
    """The first published rows that are asked for, of the first subset."""
    found = records(table, subsets_of(table)[0], through=through(table))
    for read, _ in islice(found, COLUMN_ROWS if is_local(table) else 1):
        try:
            yield read()
        except DamagedRecord:
            continue


def _column(name: str, found: list[Record]) -> Column:
    values = [one[name] for one in found if not is_missing(one.get(name))]
    pictures = [_holds_picture(value) for value in values]
    return Column(
        name,
        filled=len(values),
        pictures=sum(map(bool, pictures)),
        stored=pictures.count("stored"),
        documents=sum(map(_is_document, values)),
        sample=_shown(values[0]) if values else "",
    )


def _holds_picture(value: Any) -> str:
    """`stored` where a value is a picture, `named` where it is the name of one, else nothing."""
    if isinstance(value, list | tuple) and value:
        value = value[0]
    if isinstance(value, dict):
        value = value.get("bytes") or value.get("path")
    if isinstance(value, bytes):
        return "stored" if value.startswith(MAGIC) else ""
    if not isinstance(value, str):
        return ""
    if value.startswith(BASE64):
        return "stored"
    return "named" if PICTURE_FILE.search(value.partition("?")[0]) else ""


def _is_document(value: Any) -> bool:
    """Whether a text is JSON of an object or a list."""
    if not isinstance(value, str) or value.lstrip()[:1] not in ("[", "{"):
        return False
    try:
        json.loads(value)
    except (ValueError, RecursionError):
        return False
    return True


def _shown(value: Any) -> str:
    if isinstance(value, bytes):
        return f"{len(value):,} bytes"
    if isinstance(value, dict) and isinstance(value.get("bytes"), bytes):
        return f"{len(value['bytes']):,} bytes"
    text = value if isinstance(value, str) else repr(value)
    return text if len(text) <= SHOWN else text[:SHOWN] + "…"


def _mapping(table: Source, published: list[str]) -> dict[str, str]:
    """Canonical field -> what it is read from, for every field that rows have."""
    fields, found = Fields(table), {}
    for field in FIELDS:
        if not fields.has(field, published):
            continue
        to = table.columns.get(field)
        if field in table.constants:
            found[field] = f"always {json.dumps(table.constants[field], ensure_ascii=False)}"
        elif table.ask and field in ("question", "answer"):
            columns = ", ".join(f"`{column}`" for column in table.ask)
            found[field] = f"{columns}, a row for each" if field == "answer" else "as `ask` says"
        else:
            found[field] = ", ".join(to) if isinstance(to, list) else to or field
    return found


def _used(table: Source, mapping: dict[str, str]) -> set[str]:
    """Published columns that are read, or that the source says are not to be."""
    named = {*Fields(table).columns_of(), *table.where, *table.ask}
    own = {field for field in mapping if field not in {*table.columns, *table.constants}}
    declined = {field for field, column in table.columns.items() if column is None}
    return own | declined | named | {column.split(".")[0] for column in named}


def _reading(choices_are: str, source: Source) -> str:
    if not choices_are:
        return ""
    said = "as the source says" if source.choices_are else "as its rows show"
    return f"{NAMES[choices_are]} ({said})"  # type: ignore[index]


def _notes(table: Source, choices_are: str) -> list[str]:
    """What further rows may still change."""
    looked, notes = f"the first {through(table):,} rows", []
    if choices_are and table.choices_are is None:
        notes.append(f"how answers are read is what {looked} say; preparation looks at all")
    if table.where:
        notes.append(f"rows that `where` asks for were looked for in {looked}")
    return notes
