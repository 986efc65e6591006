"""Rules about the columns of a table: what looks like a field of a row, and is not read."""

from __future__ import annotations

import re
from collections.abc import Iterator

from siqvl.look.looked import Column, Doubt, Looked

PICTURE_NAME = re.compile(r"(^|_)(image|img|picture|photo|pic)s?(_|\d|$)", re.IGNORECASE)
CHOICES_NAME = re.compile(r"(mc_?)?(options?|choices?|candidates?)", re.IGNORECASE)
#: Columns that are one option each: `A`, `option_a`, `choice1`.
OPTION_NAME = re.compile(r"(option|choice|candidate)?_?([a-j]|\d)", re.IGNORECASE)
NUMBERED = re.compile(r"(.*?)_?\d{1,2}")
FIELD_NAMES = {"image": "pictures", "images": "pictures", "answer": "answers", "answers": "answers"}
LISTS = ("image", "images", "answers", "choices")
MESSAGES = ("messages", "conversations", "prompt", "completion", "chosen", "rejected", "history")
SEPARATED = (".csv", ".tsv", ".csv.gz", ".tsv.gz")


def columns_doubts(looked: Looked) -> Iterator[Doubt]:
    """What looks wrong in how columns are read."""
    unused = [one for name in looked.layout.unused if (one := looked.layout.column(name))]
    unused = [column for column in unused if column.filled]
    yield from _pictures(looked, unused)
    yield from _choices(looked, unused)
    yield from _siblings(looked, unused)
    yield from _documents(looked)


def _pictures(looked: Looked, unused: list[Column]) -> Iterator[Doubt]:
    """Rows without pictures: because a column that holds them is not read, or because none does."""
    rows = looked.good
    if not rows or any(row.pictures for row in rows):
        return
    named = [one for one in unused if one.pictures or PICTURE_NAME.search(one.name)]
    named.sort(key=lambda column: -column.pictures)
    if named:
        column = named[0]
        yield Doubt(
            80,
            f"None of {len(rows):,} rows has a picture, and column `{column.name}` looks like one "
            f"({column.sample}): map it, `image: {column.name}` in `columns`.",
        )
    else:
        yield Doubt(20, f"None of {len(rows):,} rows has a picture.")


def _choices(looked: Looked, unused: list[Column]) -> Iterator[Doubt]:
    if "choices" in looked.layout.mapping:
        return
    for column in unused:
        if CHOICES_NAME.fullmatch(column.name):
            yield Doubt(
                58,
                f"Column `{column.name}` looks like options ({column.sample}) and is not read, in "
                f"{column.filled:,} rows: map it, `choices: {column.name}` in `columns`.",
            )
            return
    options = [column.name for column in unused if OPTION_NAME.fullmatch(column.name)]
    if len(options) > 1:
        yield Doubt(
            58,
            f"{len(options)} columns look like one option each ({', '.join(options)}) and are not "
            f"read: map them, `choices: [{', '.join(options)}]` in `columns`.",
        )


def _siblings(looked: Looked, unused: list[Column]) -> Iterator[Doubt]:
    """Numbered columns of which some are read and others are not: `image_1` of `image_1 … 7`."""
    for field, what in FIELD_NAMES.items():
        read = looked.layout.mapping.get(field, "").split(", ")
        stems = {_stem(name) for name in read if name}
        more = [one.name for one in unused if one.name != _stem(one.name) in stems]
        if more:
            together = ", ".join([*read, *more])
            field = f"{field.removesuffix('s')}s"
            yield Doubt(
                40,
                f"{len(more)} columns look like further {what} ({', '.join(more)}) and are not "
                f"read: map all, `{field}: [{together}]` in `columns`.",
            )


def _stem(name: str) -> str:
    found = NUMBERED.fullmatch(name)
    return found[1] if found else name


def _documents(looked: Looked) -> Iterator[Doubt]:
    """Cells of a CSV that hold JSON, in a field that is a text: it is not taken apart."""
    layout = looked.layout
    if not any(name.endswith(SEPARATED) for name in layout.files):
        return
    for field, to in layout.mapping.items():
        column = layout.column(to)
        if field in (*LISTS, *MESSAGES) or column is None or not column.documents:
            continue
        if 2 * column.documents > column.filled:
            yield Doubt(
                26,
                f"Column `{to}` holds JSON in {column.documents:,} of {column.filled:,} rows "
                f"({column.sample}), and `{field}` is read as the text that it is.",
            )
