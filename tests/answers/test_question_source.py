"""What of a data set is asked, whether its answers are known or not."""

from pathlib import Path
from typing import Any

import pytest

from siqvl.answers.question_source import Questions, questions_of
from siqvl.data.schema import RowKind
from siqvl.errors import UserError
from siqvl.recipe import Source
from tests.answers.conftest import write_picture, write_rows


def asked(path: Path | str, question: str | None = None, **keys: Any) -> Questions:
    content = {"kind": "table", "path": str(path), **keys}
    return questions_of(Source.model_validate(content), None, question)


def questions(found: Questions) -> list[str]:
    return [read()["question"] for read in found.unread()]


def test_a_table_with_answers_tells_them(tmp_path: Path) -> None:
    rows = [{"question": f"which, {n}?", "answer": "AB"[n % 2]} for n in range(3)]
    found = asked(write_rows(tmp_path, rows))
    assert (found.kind, found.are_answered, found.size()) == (RowKind.EVALUATION, True, 3)
    assert [read()["answers"] for read in found.unread()] == [["A"], ["B"], ["A"]]


def test_a_table_without_answers(tmp_path: Path) -> None:
    found = asked(write_rows(tmp_path, [{"asked": "why?"}]), columns={"question": "asked"})
    assert (found.kind, found.are_answered) == (RowKind.EVALUATION, False)
    assert questions(found) == ["why?"]


@pytest.mark.parametrize("is_answered", [True, False])
def test_choices_are_listed_in_the_same_way(tmp_path: Path, is_answered: bool) -> None:
    row = {"question": "which?", "choices": ["red", "a, b"], "answer": "red"}
    row = row if is_answered else {name: row[name] for name in ("question", "choices")}
    path = write_rows(tmp_path, [row])
    assert questions(asked(path)) == ["which?\nOptions:\nA. red\nB. a, b"]
    row["choices"] = ["red", "blue"]
    path = write_rows(tmp_path, [row])
    assert questions(asked(path)) == ["which?\nOptions: red, blue"]
    if not is_answered:
        assert questions(asked(path, choices_are="letter")) == ["which?\nOptions:\nA. red\nB. blue"]


def test_conversations_and_pairs_are_asked_their_last_turn(tmp_path: Path) -> None:
    turns = [
        {"role": "user", "content": "hello"},
        {"role": "assistant", "content": "hi"},
        {"role": "user", "content": "why?"},
        {"role": "assistant", "content": "because"},
    ]
    found = asked(write_rows(tmp_path / "a", [{"messages": turns}]))
    (row,) = [read() for read in found.unread()]
    assert (found.kind, found.are_answered) == (RowKind.SFT, True)
    assert [turn["content"] for turn in row["prompt"]] == ["hello", "hi", "why?"]
    pair = {"prompt": "why?", "chosen": "because", "rejected": "never"}
    assert asked(write_rows(tmp_path / "b", [pair])).kind in (RowKind.SFT, RowKind.PREFERENCE)


def test_a_question_is_asked_about_every_row(tmp_path: Path) -> None:
    rows = [{"image": "a.png", "question": "its own?", "caption": "x"}, {"image": "a.png"}]
    write_picture(tmp_path / "a.png")
    found = asked(write_rows(tmp_path, rows), "what is this?", prompt_suffix=" Be brief.")
    assert questions(found) == ["what is this? Be brief."] * 2
    captions = [{"image": "a.png", "answer": "a square"}]
    assert asked(write_rows(tmp_path, captions), "what is this?").are_answered
    other = [captions[0] | {"question": "how many?", "answer": "one"}]
    found = asked(write_rows(tmp_path, other), "what is this?")
    assert (found.are_answered, questions(found)) == (False, ["what is this?"])


def test_pictures_alone_need_a_question(tmp_path: Path) -> None:
    for name in ("b.png", "a.jpg", ".hidden.png", "c.txt"):
        write_picture(tmp_path / "photos" / name)
    with pytest.raises(UserError, match="say what is asked about each of them with `--question`"):
        asked(tmp_path / "photos")
    found = asked(tmp_path / "photos", "<image>\nwhat is this?")
    assert [read()["id"] for read in found.unread()] == ["a.jpg", "b.png"]
    assert found.size() == 2


def test_other_formats_have_questions_of_their_own() -> None:
    found = questions_of(Source(kind="shapes", max_samples=2))
    assert found.size() == 2
    with pytest.raises(UserError, match="kind `shapes` has questions of its own"):
        questions_of(Source(kind="shapes"), None, "what is this?")


def test_what_cannot_be_asked_is_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"need `question`: map it in `columns`.*has label"):
        asked(write_rows(tmp_path, [{"label": 1}]))
    with pytest.raises(UserError, match=r"does not exist; correct `path`"):
        asked(tmp_path / "none.csv")
