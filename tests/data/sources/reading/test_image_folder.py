"""ImageFolder's `metadata` tables, compared with `datasets`' own builder."""

import csv
import io
import json
from pathlib import Path
from typing import Any

import pytest

from siqvl.data import sources
from siqvl.data.schema import Row, RowKind
from siqvl.recipe import Source
from tests.data.made_pictures import picture

COLORS = ("red", "blue", "green")


def write(folder: Path, rows: list[dict[str, Any]], name: str = "metadata.jsonl") -> None:
    folder.mkdir(parents=True, exist_ok=True)
    if name.endswith(".csv"):
        text = io.StringIO()
        lines = csv.DictWriter(text, list(rows[0]))
        lines.writeheader()
        lines.writerows(rows)
        (folder / name).write_text(text.getvalue())
    else:
        (folder / name).write_text("".join(json.dumps(row) + "\n" for row in rows))


def pictures(folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for color in COLORS:
        (folder / f"{color}.png").write_bytes(picture(color))


def read(path: Path, split: str = "train", **keys: Any) -> list[Row]:
    source = Source(kind="table", path=str(path), split=split, **keys)
    sources.check(source, RowKind.SFT)
    return list(sources.rows(source, RowKind.SFT, 0))


@pytest.mark.parametrize("name", ["metadata.jsonl", "metadata.csv"])
@pytest.mark.parametrize("split", ["train", "test"])
def test_rows_are_those_of_datasets(name: str, split: str, tmp_path: Path) -> None:
    from datasets import load_dataset

    for part in ("train", "test"):
        pictures(tmp_path / part)
        rows = [
            {"file_name": f"{one}.png", "question": f"{part}?", "answer": one} for one in COLORS
        ]
        write(tmp_path / part, rows, name)
    theirs = load_dataset("imagefolder", data_dir=str(tmp_path), split=split)
    colors = {answer: image.getpixel((0, 0)) for answer, image in zip(
        theirs["answer"], theirs["image"], strict=True
    )}  # fmt: skip
    rows = read(tmp_path, split)
    assert [row["completion"][0]["content"] for row in rows] == list(theirs["answer"])
    for row in rows:
        assert row["images"] == [picture(row["completion"][0]["content"])]
        assert row["prompt"][0]["content"] == f"{split}?"
    assert len(colors) == 3


def test_several_pictures_and_columns_of_other_names(tmp_path: Path) -> None:
    pictures(tmp_path)
    about = {"question": "Q?", "answer": "a"}
    write(tmp_path, [about | {"file_names": ["red.png", "blue.png"]}])
    assert read(tmp_path)[0]["images"] == [picture("red"), picture("blue")]
    write(tmp_path, [about | {"left_file_name": "blue.png"}])
    assert read(tmp_path, columns={"image": "left"})[0]["images"] == [picture("blue")]


def test_a_picture_of_another_split_than_its_row_is_not_taken(tmp_path: Path) -> None:
    pictures(tmp_path / "test")
    pictures(tmp_path / "a")
    about = {"question": "Q?", "answer": "a"}
    write(tmp_path, [about | {"file_name": "a/red.png"}, about | {"file_name": "test/red.png"}])
    good, bad = read(tmp_path)
    assert good["images"] == [picture("red")]
    assert bad["damaged"] == (
        "the folder of its picture test/red.png says a split, but its table does not: put a "
        "metadata file into the folder of each split"
    )
    whole = read(tmp_path / "metadata.jsonl")  # a file that is named is read whole
    assert [row["images"] for row in whole] == [[picture("red")]] * 2


def test_other_tables_keep_such_a_column(tmp_path: Path) -> None:
    pictures(tmp_path)
    about = {"question": "Q?", "answer": "a", "file_name": "red.png"}
    write(tmp_path, [about], "rows.jsonl")
    assert read(tmp_path)[0]["images"] == []
    assert read(tmp_path, columns={"image": "file_name"})[0]["images"] == [picture("red")]
