"""A small data set that is well, in a folder of its own."""

from __future__ import annotations

import csv
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from siqvl.data.schema import RowKind
from siqvl.look.first_rows import look_at
from siqvl.look.looked import Looked
from siqvl.look.subjects import of_source
from siqvl.recipe import Source
from tests.data.made_pictures import picture

COLORS = ("red", "green", "blue", "purple")
ROWS = 12

Row = dict[str, Any]


def clean_rows() -> list[Row]:
    """Twelve questions about twelve pictures, each with options and an id."""
    return [
        {
            "id": f"q{number}",
            "image": f"images/{number}.png",
            "question": f"Which color is shape {number}?",
            "answer": COLORS[number % 4],
            "choices": str([*COLORS]),
        }
        for number in range(ROWS)
    ]


def write_table(folder: Path, rows: list[Row], name: str = "train.csv") -> Path:
    """A table of these rows, beside twelve pictures of different colours."""
    (folder / "images").mkdir(parents=True, exist_ok=True)
    for number in range(ROWS):
        made = picture(f"#{17 * number % 256:02x}2040", size=(24, 16))
        (folder / "images" / f"{number}.png").write_bytes(made)
    file = folder / name
    with file.open("w", newline="", encoding="utf-8") as stream:
        writer = csv.DictWriter(stream, [*dict.fromkeys(key for row in rows for key in row)])
        writer.writeheader()
        writer.writerows(rows)
    return file


@pytest.fixture
def looked(tmp_path: Path) -> Callable[..., Looked]:
    """Looks at some rows as a table of their own."""

    def look(
        rows: list[Row], kind: RowKind = RowKind.SFT, name: str = "train.csv", **keys: Any
    ) -> Looked:
        file = write_table(tmp_path, rows, name)
        source = Source.model_validate({"kind": "table", "path": str(file), **keys})
        return look_at(of_source(source, kind, None, None), 8, None)

    return look


def sentences(found: Looked) -> list[str]:
    return [doubt.text for doubt in found.doubts]
