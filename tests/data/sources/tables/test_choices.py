"""What the answers of multiple-choice rows are, decided by all rows of a source."""

import json
import random
from pathlib import Path
from string import ascii_uppercase

import pytest

from siqvl.data import sources
from siqvl.data.preparation.prepare import prepare
from siqvl.data.schema import Row, RowKind, with_options
from siqvl.data.shards import load_prepared
from siqvl.data.sources.tables.choices import reading_of
from siqvl.data.sources.values.cells import Misread
from siqvl.errors import UserError
from siqvl.recipe import ChoicesAre, DataPrep, Source
from tests.data.made_pictures import picture

ANIMALS = ["cat", "dog", "owl"]


@pytest.mark.parametrize(
    ("rows", "reading"),
    [
        ([(["owl"], ANIMALS), (["dog"], ANIMALS)], "text"),
        ([(["B"], ANIMALS), (["a"], ANIMALS)], "letter"),
        ([(["(B)"], ANIMALS), (["C."], ANIMALS)], "letter"),
        ([(["0"], ANIMALS), (["1"], ANIMALS)], "index0"),
        ([(["3"], ANIMALS), (["1"], ANIMALS)], "index1"),
        ([(["1"], ANIMALS)] * 9 + [(["0"], ANIMALS)], "index0"),  # one row tells
        # options that are numbers, and one of the answers is no place among them
        ([(["2"], ["3", "2", "4"]), (["7"], ["7", "8"])], "text"),
        ([(["2"], ["3", "2", "4"]), (["0"], ["7", "8"])], "index0"),
        ([(["B"], ["A", "B"])], "text"),  # as a letter it is the same choice
        ([(["cat"], ANIMALS)] * 49 + [(["zebra"], ANIMALS)], "text"),  # a bad row
        ([(["cat", "dog"], ANIMALS)], "text"),
        ([(["cat"], []), ([], ANIMALS)], None),  # nothing to read
        ([(["zebra"], ANIMALS)], "text"),  # none fits: all are bad
    ],
)
def test_the_reading_is_the_one_that_fits(
    rows: list[tuple[list[str], list[str]]], reading: ChoicesAre | None
) -> None:
    assert reading_of(rows) == reading


@pytest.mark.parametrize(
    "rows",
    [
        [(["1"], ANIMALS)] * 5,  # the first, or the second
        [(["2"], ["3", "2", "4"])],
        [(["B"], ["x", "B", "A"]), (["A"], ["A", "x"]), (["B"], ["B", "A"])],
        [(["cat"], ANIMALS), (["B"], ANIMALS)],  # each fits as many
    ],
)
def test_two_readings_that_fit_alike_are_refused(
    rows: list[tuple[list[str], list[str]]],
) -> None:
    with pytest.raises(Misread, match=r"say which with `choices_are: \w+` or `choices_are: \w+`"):
        reading_of(rows)


def table(folder: Path, rows: list[Row], **keys: object) -> Source:
    (folder / "p.png").write_bytes(picture("red"))
    file = folder / "rows.jsonl"
    file.write_text("".join(json.dumps({"image": "p.png"} | row) + "\n" for row in rows))
    return Source(kind="table", path=str(file), **keys)


def rows_of(count: int, written: str, seed: int) -> tuple[list[Row], list[str]]:
    """Published rows whose answers are written in one way, and the choices that are right."""
    rng = random.Random(seed)
    rows, right = [], []
    for number in range(count):
        options = rng.sample(["cat", "dog", "owl", "a, b", "7", "12", "fox"], rng.randint(2, 6))
        at = rng.randrange(len(options))
        answer: object = {
            "text": options[at],
            "letter": ascii_uppercase[at],
            "index0": at,
            "index1": str(at + 1),
        }[written]
        rows.append({"question": f"Which, {number}?", "choices": options, "answer": answer})
        right.append(options[at])
    return rows, right


@pytest.mark.parametrize("processes", [1, 2])
@pytest.mark.parametrize("written", ["text", "letter", "index0", "index1"])
def test_every_row_is_read_alike_in_training_and_as_a_benchmark(
    written: str, processes: int, tmp_path: Path
) -> None:
    rows, right = rows_of(600, written, seed=3)
    source = table(tmp_path, rows)
    data = DataPrep(processes=processes, duplicates="none")
    manifest = prepare([source], RowKind.EVALUATION, tmp_path / "test", data=data, seed=0)
    assert manifest.of_sources[0].choices_are == written
    page = (tmp_path / "test" / "report.html").read_text()
    assert f"answers of rows with choices are read as {written}" in page
    asked, _ = load_prepared(tmp_path / "test", RowKind.EVALUATION)
    assert [row["answers"] for row in asked] == [[one] for one in right]
    prepare([source], RowKind.SFT, tmp_path / "train", data=data, seed=0)
    learnt, _ = load_prepared(tmp_path / "train", RowKind.SFT)
    assert [row["completion"][0]["content"] for row in learnt] == right


def test_what_cannot_be_told_is_said_before_any_piece(tmp_path: Path) -> None:
    source = table(tmp_path, [{"question": "Which?", "choices": ANIMALS, "answer": 1}])
    with pytest.raises(UserError) as error:
        prepare([source], RowKind.SFT, tmp_path / "out", data=DataPrep(), seed=0)
    assert error.value.message == (
        f"source `table`: {source.path}: its answers can be read as the number of a choice, from 0 "
        "and as the number of a choice, from 1: each fits 1 of 1 rows with choices (answer '1' of "
        "[cat, dog, owl] would be 'dog' or 'cat'); say which with `choices_are: index0` or "
        "`choices_are: index1`"
    )
    (row,) = sources.rows(source.model_copy(update={"choices_are": "index1"}), RowKind.SFT, 0)
    assert row["completion"][0]["content"] == "cat"


def test_one_row_that_does_not_fit_is_a_bad_row(tmp_path: Path) -> None:
    rows, _ = rows_of(99, "letter", seed=1)
    source = table(tmp_path, [*rows, {"question": "Q", "choices": ["x", "y"], "answer": "Z"}])
    manifest = prepare([source], RowKind.SFT, tmp_path / "out", data=DataPrep(), seed=0)
    assert manifest.quarantined == {"damaged record": 1}
    line = json.loads((tmp_path / "out" / "quarantine.jsonl").read_text())
    assert line["detail"] == (
        "answer 'Z' is none of its choices, [x, y], read as the letter of a choice"
    )


def test_options_are_listed_so_that_each_ends_somewhere() -> None:
    assert with_options("Which?", ["red", "blue"]) == "Which?\nOptions: red, blue"
    assert with_options("Which?", ["1,000", "2"]) == "Which?\nOptions:\nA. 1,000\nB. 2"
    assert with_options("Which?", ["red"], by_letter=True) == "Which?\nOptions:\nA. red"
    assert with_options("Q", [f"{n}," for n in range(27)]).endswith("\n27. 26,")
