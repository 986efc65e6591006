"""ScienceQA's official download: one object keyed by id, pictures in a folder an id."""

import json
from pathlib import Path

import pytest

from siqvl.data import sources
from siqvl.data.schema import RowKind
from siqvl.errors import UserError
from siqvl.recipe import Source
from tests.data.made_pictures import picture

PROBLEMS = {
    "7": ("train", None, 1),
    "12": ("train", "image.png", 0),
    "31": ("val", "image.png", 2),
    "40": ("test", None, 0),
}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    problems = {}
    for key, (split, image, answer) in PROBLEMS.items():
        problems[key] = {"question": f"Which, {key}?", "choices": ["iron", "gold", "tin"]}
        problems[key] |= {"answer": answer, "hint": "", "image": image, "split": split}
        problems[key] |= {"solution": f"Because {key}.", "lecture": "", "subject": "science"}
        if image:
            place = tmp_path / "images" / split / key
            place.mkdir(parents=True)
            (place / image).write_bytes(picture(f"#0000{key}"))
    (tmp_path / "problems.json").write_text(json.dumps(problems))
    return tmp_path


@pytest.mark.parametrize(
    ("split", "keys"),
    [("train", ["7", "12"]), ("val", ["31"]), ("validation", ["31"]), ("test", ["40"])],
)
def test_rows_of_a_split_with_their_own_pictures(folder: Path, split: str, keys: list[str]) -> None:
    source = Source(kind="scienceqa", path=str(folder), split=split)
    sources.check(source, RowKind.EVALUATION)
    rows = list(sources.rows(source, RowKind.EVALUATION, 0))
    assert [row["question"].partition("?")[0] for row in rows] == [f"Which, {key}" for key in keys]
    for key, row in zip(keys, rows, strict=True):
        _, image, answer = PROBLEMS[key]
        assert row["answers"] == [["iron", "gold", "tin"][answer]]
        assert row["images"] == ([picture(f"#0000{key}")] if image else [])


def test_a_split_that_is_not_there_is_said(folder: Path) -> None:
    source = Source(kind="scienceqa", path=str(folder), split="dev2")
    with pytest.raises(UserError, match="unknown split `dev2`; it has test, train, val"):
        list(sources.rows(source, RowKind.EVALUATION, 0))
