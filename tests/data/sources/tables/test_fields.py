"""Which canonical field comes from which column: mapped ones win, patterns, lists, constants."""

import json
from pathlib import Path
from typing import Any

import pytest

from siqvl.data import sources
from siqvl.data.schema import Row, RowKind
from siqvl.errors import UserError
from siqvl.recipe import Source
from tests.data.made_pictures import picture

RED, BLUE = picture("red"), picture("blue")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name, data in (("red", RED), ("blue", BLUE)):
        (tmp_path / f"{name}.png").write_bytes(data)
    for number in range(3):
        (tmp_path / "images").mkdir(exist_ok=True)
        (tmp_path / "images" / f"dev-7-{number}.png").write_bytes(picture(f"#00000{number}"))
        (tmp_path / "images" / f"{number:012d}.png").write_bytes(picture(f"#00000{number}"))
    return tmp_path


def source(folder: Path, records: list[dict[str, Any]], **keys: Any) -> Source:
    file = folder / "rows.jsonl"
    file.write_text("".join(json.dumps(record) + "\n" for record in records))
    return Source(kind="table", path=str(file), **keys)


def read(made: Source, kind: RowKind = RowKind.SFT) -> list[Row]:
    sources.check(made, kind)
    return list(sources.rows(made, kind, 0))


def said(row: Row) -> tuple[str, str]:
    return row["prompt"][-1]["content"], row["completion"][0]["content"]


@pytest.mark.parametrize(
    ("record", "columns", "images", "turns"),
    [
        (  # mapped columns beside unmapped ones with canonical names
            {"photo": "red.png", "images": ["blue.png"], "label": "red", "answers": ["old"]},
            {"image": "photo", "answer": "label"},
            [RED],
            ("Q?", "red"),
        ),
        (
            {"image": "blue.png", "photos": ["red.png"], "answer": "old", "all": ["a", "a", "b"]},
            {"images": "photos", "answers": "all"},
            [RED],
            ("Q?", "a"),
        ),
        (  # a conversation that is not wanted, and one that is
            {"conversations": [{"from": "human", "value": "no"}, {"from": "gpt", "value": "no"}]}
            | {"text": "yes?", "answer": "yes"},
            {"question": "text"},
            [],
            ("yes?", "yes"),
        ),
        (
            {"turns": [{"from": "human", "value": "yes?"}, {"from": "gpt", "value": "yes"}]}
            | {"answer": "no", "answers": ["no"]},
            {"conversations": "turns"},
            [],
            ("yes?", "yes"),
        ),
        (  # switched off
            {"image": "red.png", "images": ["blue.png"], "answer": "a", "choices": ["x"]},
            {"image": None, "choices": None},
            [BLUE],
            ("Q?", "a"),
        ),
        (  # whichever has pictures
            {"image": None, "images": ["red.png", "blue.png"], "answer": "no"},
            {},
            [RED, BLUE],
            ("Q?", "no"),
        ),
        ({"image": "red.png", "images": [], "answer": "red"}, {}, [RED], ("Q?", "red")),
        ({"image": "red.png", "images": ["red.png"], "answer": "red"}, {}, [RED], ("Q?", "red")),
        (  # a column whose name has a dot in it, and an object
            {"a.b": "right", "a": {"b": "wrong", "c": "red.png"}},
            {"answer": "a.b", "image": "a.c"},
            [RED],
            ("Q?", "right"),
        ),
        (  # patterns
            {"place": "red", "answer": "12", "unit": "kg"},
            {"image": "{place}.png", "answer": "{answer} {unit?}"},
            [RED],
            ("Q?", "12 kg"),
        ),
        (
            {"number": 2, "answer": "12", "unit": None},
            {"image": "images/{number:012d}.png", "answer": "{answer} {unit?}"},
            [picture("#000002")],
            ("Q?", "12"),
        ),
        *(
            (  # what stands before an optional column goes with it
                {"hint": hint, "asked": "Why?", "answer": "a"},
                {"question": "Context: {hint?}\n{asked} Think."},
                [],
                (said, "a"),
            )
            for hint, said in (
                (None, "Why? Think."),
                ("It rains.", "Context: It rains.\nWhy? Think."),
            )
        ),
        ({"place": None, "answer": "a"}, {"image": "{place}.png"}, [], ("Q?", "a")),
        (
            {"n": "7", "answer": "a"},
            {"images": "images/dev-{n}-{1..2}.png", "question": "Is it {{so}}? {n}"},
            [picture("#000001"), picture("#000002")],
            ("Is it {so}? 7", "a"),
        ),
        (  # several columns
            {"image_1": "red.png", "image_2": None, "image_3": "blue.png", "answer": "B"}
            | {"A": "x", "B": "y", "C": None},
            {"images": ["image_1", "image_2", "image_3"], "choices": ["A", "B", "C"]},
            [RED, BLUE],
            ("Q?\nOptions:\nA. x\nB. y", "y"),
        ),
    ],
)
def test_mapped_columns(
    folder: Path,
    record: dict[str, Any],
    columns: dict[str, Any],
    images: list[bytes],
    turns: tuple[str, str],
) -> None:
    question = {} if "question" in columns or "conversations" in columns else {"question": "Q?"}
    (row,) = read(source(folder, [question | record], columns=columns))
    assert row["images"] == images
    assert said(row) == turns


@pytest.mark.parametrize(
    ("record", "columns", "reason"),
    [
        (
            {"image": "red.png", "images": ["blue.png", "red.png"]},
            {},
            "`image` holds 1 and `images` 2 pictures that differ; map the right one in `columns`, "
            "or the other one to null",
        ),
        ({"n": "x"}, {"image": "{n:03d}.png"}, "`n` is 'x', expected a whole number"),
        ({"n": [1]}, {"image": "{n}.png"}, "`n` is a list, expected a text or a number"),
        (
            {"A": "x", "B": None, "C": "z"},
            {"choices": ["A", "B", "C"]},
            "choice `B` is empty, but one after it is not",
        ),
    ],
)
def test_a_row_without_a_right_reading_is_a_bad_row(
    folder: Path, record: dict[str, Any], columns: dict[str, Any], reason: str
) -> None:
    (row,) = read(source(folder, [{"question": "Q?", "answer": "a"} | record], columns=columns))
    assert row["damaged"] == reason


def test_a_range_makes_a_row_of_each_picture(folder: Path) -> None:
    columns = {"image": "images/dev-{n}-{0..2}.png", "question": "True? {sentence}"}
    records = [{"id": "a", "n": 7, "sentence": "It is black.", "answer": "true"}] * 2
    rows = read(source(folder, records, columns=columns))
    assert [row["images"] for row in rows] == [[picture(f"#00000{n}")] for n in range(3)] * 2
    assert {said(row) for row in rows} == {("True? It is black.", "true")}
    assert [row["id"] for row in rows[:3]] == [f"rows/train/a/{n}" for n in range(3)]


def test_a_row_for_each_question_that_is_asked(folder: Path) -> None:
    ask = {"company": "Who sold it?", "total": "What is the total?"}
    records = [
        {"image": "red.png", "company": "Made Up Ltd", "total": "9.00"},
        {"image": "blue.png", "company": "", "total": 7.5},
    ]
    rows = read(source(folder, records, ask=ask))
    assert [said(row) for row in rows if "prompt" in row] == [
        ("Who sold it?", "Made Up Ltd"),
        ("What is the total?", "9.00"),
        ("What is the total?", "7.5"),
    ]
    assert rows[2]["left_out"] == "nothing in column `company`"
    assert len({row["id"] for row in rows}) == 4


def test_constants(folder: Path) -> None:
    made = source(
        folder,
        [{"image": "red.png", "caption": "A red square.", "question": "other"}],
        constants={"question": "What do you see?"},
        columns={"answer": "caption"},
    )
    assert said(read(made)[0]) == ("What do you see?", "A red square.")


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        (
            {"columns": {"image": "{a}-{}.png"}},
            "`image` in `columns`: `{a}-{}.png`: expected {column}, {column:05d} or {0..5}",
        ),
        ({"columns": {"image": "{0..2}-{0..2}"}}, "`image` in `columns`: `{0..2}-{0..2}` has two "),
        ({"columns": {"image": "{5..2}"}}, "`image` in `columns`: `{5..2}`: the range has nothing"),
        ({"columns": {"image": "{a!r}"}}, "`image` in `columns`: `{a!r}`: expected"),
        ({"columns": {"image": "{a"}}, "`image` in `columns`: expected '}' before end of string"),
        ({"columns": {"image": ["a", "b"]}}, "`image` in `columns` takes one column; several make"),
        ({"columns": {"picture": "a"}}, "unknown field `picture` in `columns`; known are id, "),
        ({"constants": {"picture": "a"}}, "unknown field `picture` in `constants`; known are id"),
        (
            {"columns": {"answer": "a"}, "constants": {"answer": "b"}},
            "`answer` is in `columns` and in `constants`; keep one",
        ),
        (
            {"ask": {"a": "A?"}, "columns": {"answer": "a"}},
            "`ask` says what is the question and the answer of each row; leave `answer` out",
        ),
        ({"columns": {"image": "{pid}.png"}}, "no column `pid` for `image`; {path} has question"),
        ({"where": {"pid": 1}}, "no column `pid` for `where`; {path} has question, answer"),
        ({"ask": {"pid": "A?"}}, "no column `pid` for `ask`; {path} has question, answer"),
        ({"columns": {"answer": None}}, "sft rows need `answer` or `answers` or "),
        ({"pictures": "nowhere"}, "nowhere is no folder; correct `pictures`, which like `path`"),
    ],
)
def test_what_cannot_be_is_said_before_work_starts(
    folder: Path, keys: dict[str, Any], message: str
) -> None:
    made = source(folder, [{"question": "Q?", "answer": "a"}], **keys)
    with pytest.raises(UserError) as error:
        sources.check(made, RowKind.SFT)
    expected = "source `table`: " + message.replace("{path}", str(made.path))
    assert error.value.message.startswith(expected)


def test_other_formats_have_columns_of_their_own(folder: Path) -> None:
    made = Source(kind="llava", path=str(folder), where={"a": 1})
    with pytest.raises(
        UserError, match=r"source `llava` has columns of its own; leave out `where`"
    ):
        sources.check(made, RowKind.SFT)


def test_pictures_may_lie_elsewhere(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (folder / "tables").mkdir()
    record = [{"image": "red.png", "question": "Q?", "answer": "a"}]
    assert read(source(folder / "tables", record))[0]["images"] == ["red.png"]
    monkeypatch.setenv("PICTURES", str(folder))
    assert read(source(folder / "tables", record, pictures="${PICTURES}"))[0]["images"] == [RED]
