"""Accented names of columns and pictures are found however they are encoded, and never guessed."""

import json
import zipfile
from pathlib import Path
from unicodedata import normalize

import pytest

from siqvl.data import sources
from siqvl.data.schema import RowKind
from siqvl.data.sources.reading.tree import Tree
from siqvl.errors import UserError
from siqvl.recipe import Source
from tests.data.made_pictures import picture

FORMS = ("NFC", "NFD")
RED, BLUE = picture("red"), picture("blue")


def table(folder: Path, *rows: dict, **keys) -> Source:
    folder.mkdir(exist_ok=True, parents=True)
    text = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
    (folder / "rows.jsonl").write_text(text, encoding="utf-8")
    return Source(kind="table", path=str(folder / "rows.jsonl"), **keys)


def read(source: Source) -> list[dict]:
    sources.check(source, RowKind.SFT)
    return list(sources.rows(source, RowKind.SFT, 0))


@pytest.mark.parametrize("written", FORMS)
@pytest.mark.parametrize("mapped", FORMS)
@pytest.mark.parametrize("stem", ["réponse", "données.réponse"])
def test_a_column_is_found_in_either_form(tmp_path, written, mapped, stem):
    names = normalize(written, stem).split(".")
    value: object = "blue"
    for name in reversed(names[1:]):
        value = {name: value}
    source = table(
        tmp_path,
        {"question": "Which?", names[0]: value},
        columns={"answer": normalize(mapped, stem)},
    )
    (row,) = read(source)
    assert row["completion"] == [{"role": "assistant", "content": "blue"}]


def test_columns_that_differ_in_nothing_else_are_refused(tmp_path):
    one, other = (normalize(form, "réponse") for form in FORMS)
    source = table(
        tmp_path, {"question": "Which?", one: "blue", other: "red"}, columns={"answer": one}
    )
    with pytest.raises(UserError, match="2 columns that look like `réponse`"):
        sources.check(source, RowKind.SFT)
    late = table(
        tmp_path / "late",
        *[{"question": "Which?", one: "blue"}] * 120,
        {"question": "Which?", one: "blue", other: "red"},
        columns={"answer": one},
    )
    *rows, last = read(late)
    assert len(rows) == 120
    assert "2 columns look like" in last["damaged"]


@pytest.mark.parametrize("written", FORMS)
@pytest.mark.parametrize("stored", FORMS)
@pytest.mark.parametrize("place", ["café.png", "bilder/été/café.png"])
def test_a_picture_is_found_in_either_form(tmp_path, written, stored, place):
    file = tmp_path / normalize(stored, place)
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(RED)
    row = {"image": normalize(written, place), "question": "Which?", "answer": "red"}
    (read_row,) = read(table(tmp_path, row))
    assert read_row["images"] == [RED]


def test_the_name_that_is_written_is_meant_where_both_are_there(tmp_path):
    names = [normalize(form, "café.png") for form in FORMS]
    for name, content in zip(names, (RED, BLUE), strict=True):
        (tmp_path / name).write_bytes(content)
    rows = [{"image": name, "question": "Which?", "answer": "x"} for name in names]
    assert [row["images"] for row in read(table(tmp_path, *rows))] == [[RED], [BLUE]]


def test_a_name_that_could_be_two_pictures_is_refused(tmp_path):
    """Two accents, of which the table composes one alone, and the files both or none."""
    names = [normalize(form, "été.png") for form in FORMS]
    mixed = normalize("NFC", "é") + normalize("NFD", "té.png")
    assert mixed not in names
    for name, content in zip(names, (RED, BLUE), strict=True):
        (tmp_path / name).write_bytes(content)
    row = {"image": mixed, "question": "Which?", "answer": "x"}
    ((found,),) = [one["images"] for one in read(table(tmp_path, row))]
    assert isinstance(found, str)
    assert "which one?" in found
    (tmp_path / names[1]).write_bytes(RED)
    assert read(table(tmp_path, row))[0]["images"] == [RED]  # the same picture


@pytest.mark.parametrize("stored", FORMS)
@pytest.mark.parametrize("written", FORMS)
def test_a_picture_of_an_archive_is_found_in_either_form(tmp_path, stored, written):
    with zipfile.ZipFile(tmp_path / "pictures.zip", "w") as archive:
        archive.writestr(normalize(stored, "a/café.png"), RED)
    assert Tree(tmp_path / "pictures.zip").picture(normalize(written, "café.png")) == RED
