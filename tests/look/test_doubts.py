"""Each rule tells one made mistake, with the number that was made, and nothing else."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from siqvl.data.schema import RowKind
from siqvl.look.doubts import shared_pictures
from siqvl.look.first_rows import look_at
from siqvl.look.looked import Looked
from siqvl.look.subjects import EVALUATION, of_recipe, of_source
from siqvl.recipe import DataPrep, Recipe, Source
from tests.look.conftest import ROWS, Row, clean_rows, sentences, write_table

Look = Callable[..., Looked]
ROOT = Path(__file__).parents[2]


def changed(change: Callable[[int, Row], Row]) -> list[Row]:
    """The clean rows, each after a change that gets its number and the row."""
    return [change(number, row) for number, row in enumerate(clean_rows())]


def without(row: Row, *columns: str) -> Row:
    return {key: value for key, value in row.items() if key not in columns}


def renamed(row: Row, column: str, name: str) -> Row:
    return {name if key == column else key: value for key, value in row.items()}


@pytest.mark.parametrize("kind", [RowKind.SFT, RowKind.EVALUATION])
def test_nothing_looks_wrong_in_rows_that_are_well(kind: RowKind, looked: Look) -> None:
    found = looked(clean_rows(), kind)
    assert sentences(found) == []
    assert (len(found.good), found.ended) == (ROWS, True)


MISTAKES: dict[str, tuple[Callable[[int, Row], Row], str]] = {
    "pictures that are not there": (
        lambda n, row: row | {"image": f"images/no{n}.png"} if n in (3, 7) else row,
        "Pictures of 2 of 12 rows are named but not found: images/no3.png is the first",
    ),
    "answers that are empty": (
        lambda n, row: row | {"answer": ""} if n == 5 else row,
        "In 1 of 12 rows `completion` is empty, first in train/train/q5.",
    ),
    "marks without pictures": (
        lambda n, row: row | {"question": f"<image> <image> Which is it, {n}?"} if n < 4 else row,
        "In 4 of 12 rows marks and pictures do not fit: 2 <image> marks in its text, but 1",
    ),
    "an answer that is no choice": (
        lambda n, row: row | {"answer": "black"} if n == 2 else row,
        "1 of 12 rows are bad, the first is train/train/0000002 (damaged record: answer 'black' is",
    ),
    "one answer for all": (
        lambda n, row: row | {"answer": "red"},
        "All 12 rows have the same answer, 'red'.",
    ),
    "rows that repeat": (
        lambda n, row: row if n < 9 else clean_rows()[0] | {"id": row["id"]},
        "3 of 12 rows repeat an earlier one, texts and pictures (the first is train/train/q9, "
        "equal to train/train/q0); they are left out.",
    ),
    "pictures of another name": (
        lambda n, row: renamed(row, "image", "photo_path"),
        "None of 12 rows has a picture, and column `photo_path` looks like one (images/0.png)",
    ),
    "no pictures at all": (
        lambda n, row: without(row, "image"),
        "None of 12 rows has a picture.",
    ),
    "options of another name": (
        lambda n, row: renamed(row, "choices", "options"),
        "Column `options` looks like options (['red', 'green', 'blue', 'purple']) and is not read",
    ),
    "options in columns of their own": (
        lambda n, row: without(row, "choices") | {"A": "red", "B": "green", "C": "x", "D": "y"},
        "4 columns look like one option each (A, B, C, D) and are not read",
    ),
    "letters without options": (
        lambda n, row: without(row, "choices") | {"answer": "ABCD"[n % 4]},
        "The answers of 12 of 12 rows are single letters, the first is 'A', but no options",
    ),
    "questions that tell": (
        lambda n, row: (
            without(row, "choices")
            | {"question": f"Which one of all shapes in picture {n} is {row['answer'].upper()}?"}
        ),
        "12 of 12 questions hold their answer: 'red' stands in",
    ),
    "HTML": (
        lambda n, row: row | {"question": f"this &amp; that, {n}?"} if n in (4, 6) else row,
        "2 of 12 rows hold HTML in place of characters, the first '&amp;' in train/train/q4",
    ),
    "labels that are JSON": (
        lambda n, row: without(row, "choices") | {"answer": json.dumps({"total": n})},
        'Column `answer` holds JSON in 12 of 12 rows ({"total": 0}), and `answer` is read as',
    ),
    "some of several pictures": (
        lambda n, row: row | {"image_2": f"images/{n}.png", "image_3": f"images/{n}.png"},
        "2 columns look like further pictures (image_2, image_3) and are not read: map all, "
        "`images: [image, image_2, image_3]`",
    ),
}


@pytest.mark.parametrize("name", MISTAKES)
def test_a_mistake_is_told_with_its_number(name: str, looked: Look) -> None:
    change, sentence = MISTAKES[name]
    (said,) = sentences(looked(changed(change)))
    assert said.startswith(sentence)


def test_an_array_of_pictures_that_is_read_leaves_no_doubt(looked: Look) -> None:
    rows = changed(lambda n, row: row | {"image_2": f"images/{n}.png"})
    found = looked(rows, columns={"images": ["image", "image_2"]})
    assert sentences(found) == []
    assert {len(row.pictures) for row in found.good} == {2}


def test_a_column_that_is_declined_leaves_no_doubt(looked: Look) -> None:
    rows = changed(lambda n, row: without(row, "choices") | {"options": "['a']"})
    assert len(sentences(looked(rows))) == 1
    assert (
        sentences(
            looked([renamed(row, "options", "choices") for row in rows], columns={"choices": None})
        )
        == []
    )


@pytest.mark.parametrize(
    "question",
    ["Which? A. red B. green", "Which?\n(A) red\n(B) green", "Which?\nA: red\nB: green"],
)
def test_letters_of_options_in_the_question_are_fine(question: str, looked: Look) -> None:
    rows = changed(
        lambda n, row: (
            without(row, "choices") | {"question": f"{n}, {question}", "answer": "AB"[n % 2]}
        )
    )
    assert sentences(looked(rows)) == []


def test_either_or_is_no_question_that_tells(looked: Look) -> None:
    rows = changed(
        lambda n, row: (
            without(row, "choices") | {"question": f"{n}: is it red, green, blue or purple?"}
        )
    )
    assert sentences(looked(rows)) == []


def test_above_the_limit_it_says_that_preparation_stops(looked: Look) -> None:
    """One bad row of twelve is above 2 %; of two reasons the commoner one says it."""
    rows = changed(
        lambda n, row: row | ({"answer": ""} if n == 1 else {"image": "x.png"} if n > 9 else {})
    )
    first, second = sentences(looked(rows))
    assert first.startswith("Pictures of 2 of 12 rows are named but not found: x.png")
    assert first.endswith("Preparation stops above 2 % of bad rows; here 3 of 12 rows are bad.")
    assert second == "In 1 of 12 rows `completion` is empty, first in train/train/q1."


def test_bad_rows_below_the_limit_are_told_without_alarm(tmp_path: Path) -> None:
    file = write_table(tmp_path, changed(lambda n, row: row | {"answer": ""} if n == 1 else row))
    subject = of_source(Source(kind="table", path=str(file)), RowKind.SFT, None, None)
    patient = DataPrep(max_quarantined=0.1)
    found = look_at(type(subject)(**vars(subject) | {"data": patient}), rows=2, processor=None)
    assert sentences(found) == ["In 1 of 12 rows `completion` is empty, first in train/train/q1."]


@pytest.mark.parametrize("name", ["vqa_test.csv", "test.csv", "data_eval.csv"])
def test_a_file_that_says_test_is_told_when_it_would_be_trained_on(name: str, looked: Look) -> None:
    (said,) = sentences(looked(clean_rows(), name=name))
    assert said == (
        f"All 12 rows ({name}) are of split `test`, which is kept for evaluation, and would be "
        "trained on."
    )
    assert sentences(looked(clean_rows(), RowKind.EVALUATION, name=name)) == []


def test_validation_is_told_where_there_is_a_training_split(tmp_path: Path) -> None:
    write_table(tmp_path / "set", clean_rows(), "val.csv")
    source = Source(kind="table", path=str(tmp_path / "set"), split="validation")
    subject = of_source(source, RowKind.SFT, None, None)
    assert sentences(look_at(subject, 2, None)) == []  # VQAv2 on the hub has no other one
    write_table(tmp_path / "set", clean_rows(), "train.csv")
    (said,) = sentences(look_at(subject, 2, None))
    assert "(val.csv) are of split `validation`" in said


def test_a_bad_row_is_counted_once(looked: Look) -> None:
    """A row that is bad for one reason is not counted for another."""
    rows = changed(lambda n, row: row | {"answer": "", "question": "a &lt; b"} if n == 0 else row)
    (said,) = sentences(looked(rows))
    assert "`completion` is empty" in said


def test_a_source_that_cannot_be_read_says_why(looked: Look, tmp_path: Path) -> None:
    rows = [without(row, "question") for row in clean_rows()]
    found = looked(rows)
    assert "sft rows need `question`" in found.error
    assert sentences(found) == [f"It cannot be prepared: {found.error}."]


def test_no_row_is_asked_for(looked: Look) -> None:
    (said,) = sentences(looked(clean_rows(), where={"answer": "black"}))
    assert said == "There are 0 rows: none of those looked through is one that `where` asks for."


def tiny() -> dict[str, Any]:
    """The shipped recipe, whose paths count from the repository, for anywhere."""
    content = Recipe.load(ROOT / "recipes" / "tiny.yaml").model_dump(mode="json")
    for part in ("vision", "language"):
        content["model"][part] = str(ROOT / content["model"][part])
    return content


def test_the_shipped_recipe_is_well() -> None:
    """Two hundred rows of each of its sources, encoded as they would be trained on."""
    from siqvl.look.recipe_processor import local_processor

    recipe = Recipe.model_validate(tiny())
    processor, why_not = local_processor(recipe)
    assert why_not == ""
    found = [look_at(subject, 1, processor) for subject in of_recipe(recipe)]
    shared_pictures(found)
    assert {one.subject.title: sentences(one) for one in found if one.doubts} == {}
    assert {len(one.rows) for one in found} == {200}
    assert all(row.tokens for one in found for row in one.rows)


def recipe_about(training: Path, benchmark: Path, **data: Any) -> Recipe:
    content = tiny()
    content["stages"]["vqa_sft"]["sources"] = [{"kind": "table", "path": str(training)}]
    content["stages"]["vqa_sft"]["max_length"] = 60
    content["evaluation"] = {
        "benchmarks": [
            {"name": "mine", "source": {"kind": "table", "path": str(benchmark), "split": "test"}}
        ]
    }
    content["data"] |= data
    return Recipe.model_validate(content)


def test_a_picture_of_a_benchmark_is_told(tmp_path: Path) -> None:
    """The benchmark shows the pictures 0 to 4 of the twelve that are trained on."""
    training = write_table(tmp_path / "a", clean_rows())
    benchmark = write_table(tmp_path / "b", clean_rows()[:5], "test.csv")
    for data, then in (({}, "left out"), ({"leaks": "none"}, "trained on, as `data.leaks` is")):
        recipe = recipe_about(training, benchmark, **data)
        subjects = [*of_recipe(recipe, "vqa_sft"), *of_recipe(recipe, EVALUATION)]
        found = [look_at(subject, 2, None) for subject in subjects]
        shared_pictures(found)
        (said,) = sentences(found[0])
        assert said.startswith("5 of 12 rows have a picture of benchmark mine, the first is train")
        assert then in said
        assert sentences(found[1]) == []


def test_rows_that_are_too_long_are_told(tmp_path: Path) -> None:
    from siqvl.look.recipe_processor import local_processor

    rows = changed(
        lambda n, row: without(row, "choices") | ({"answer": "x " * 99} if n < 3 else {})
    )
    training = write_table(tmp_path / "a", rows)
    recipe = recipe_about(training, training)
    processor, _ = local_processor(recipe)
    (subject,) = of_recipe(recipe, "vqa_sft")
    found = look_at(subject, 4, processor)
    (said,) = [text for text in sentences(found) if "max_length" in text]
    longest = max(row.tokens for row in found.rows)
    assert said == (
        f"3 of 12 rows would not be trained on: longer than max_length 60; the longest has "
        f"{longest}."
    )
    assert [bool(example.wrong) for example in found.examples] == [True, True, True, False]
