"""VLMEvalKit's tables: base64 pictures, rows that refer to others, letters."""

import base64
import csv
from pathlib import Path
from typing import Any

import pytest

from siqvl.data import sources
from siqvl.data.preparation.prepare import prepare
from siqvl.data.schema import Row, RowKind
from siqvl.recipe import DataPrep, Source
from tests.data.made_pictures import picture

RED, BLUE = (base64.b64encode(picture(color)).decode() for color in ("red", "blue"))
CHOICE = ["index", "image", "question", "hint", "A", "B", "C", "answer", "category"]


def table(folder: Path, header: list[str], rows: list[list[Any]]) -> Source:
    file = folder / "Made_DEV.tsv"
    with open(file, "w", newline="") as stream:
        csv.writer(stream, delimiter="\t").writerows([header, *rows])
    return Source(kind="vlmevalkit", path=str(file))


def read(source: Source, kind: RowKind = RowKind.EVALUATION) -> list[Row]:
    sources.check(source, kind)
    return list(sources.rows(source, kind, 0))


def test_multiple_choice_as_published(tmp_path: Path) -> None:
    source = table(
        tmp_path,
        CHOICE,
        [
            [0, RED, "Which color?", "", "blue", "red", "", "B", "color"],
            [1, BLUE, "Which color?", "Look.", "blue", "red", "a, b", "A", "color"],
            # MMBench's circular copies: the picture is that of the row with this index
            [1000000, "0", "Which color?", "", "red", "blue", "", "A", "color"],
            [1000001, "77", "Which color?", "", "red", "blue", "", "A", "color"],
        ],
    )
    first, second, copy, lost = read(source)
    assert first["images"] == copy["images"] == [picture("red")]
    assert second["images"] == [picture("blue")]
    assert lost["images"] == ["77 (no row of this index holds a picture)"]
    assert first["question"] == "Which color?\nOptions:\nA. blue\nB. red"
    assert second["question"].startswith("Look.\nWhich color?\nOptions:\nA. blue\nB. red\nC. a, b")
    assert [row["answers"] for row in (first, second, copy)] == [["red"], ["blue"], ["red"]]
    assert first["choices"] == ["blue", "red"]
    assert first["id"].endswith("/0")
    manifest = prepare(
        [source], RowKind.EVALUATION, tmp_path / "out", data=DataPrep(max_quarantined=1), seed=0
    )
    assert (manifest.rows, manifest.quarantined) == (3, {"no image data": 1})


def test_free_answers_several_pictures_and_files(tmp_path: Path) -> None:
    (tmp_path / "blue.png").write_bytes(picture("blue"))
    header = ["index", "image", "image_path", "question", "answer"]
    source = table(
        tmp_path,
        header,
        [
            [0, f"['{RED}', '{BLUE}']", "", "Same?", "no"],
            [1, "", "blue.png", "Which?", "['blue', 'navy']"],
            [2, "", "", "1 + 1?", "2"],
        ],
    )
    several, file, none = read(source)
    assert several["images"] == [picture("red"), picture("blue")]
    assert file["images"] == [picture("blue")]
    assert file["answers"] == ["blue", "navy"]
    assert none["images"] == []
    assert read(source, RowKind.SFT)[0]["completion"][0]["content"] == "no"


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        ([0, RED, "Q?", "", "x", "y", "", "D", ""], "answer 'D' is none of its choices, [x, y]"),
        ([0, RED, "Q?", "", "x", "", "z", "A", ""], "options A, C are not the first letters of"),
        ([0, RED, "Q?", "", "x", "y", "", "red", ""], "answer 'red' is none of its choices"),
    ],
)
def test_bad_rows(row: list[Any], reason: str, tmp_path: Path) -> None:
    assert read(table(tmp_path, CHOICE, [row]))[0]["damaged"].startswith(reason)


def test_a_picture_that_is_no_base64_is_named(tmp_path: Path) -> None:
    row = [0, "?" * 200, "Q?", "", "x", "y", "", "A", ""]
    (found,) = read(table(tmp_path, CHOICE, [row]))
    assert found["images"] == ["?" * 64 + "… (no base64)"]
