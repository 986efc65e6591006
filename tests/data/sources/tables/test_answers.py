"""Which of the things that a row says is its answer, where it says several."""

import json
from pathlib import Path
from typing import Any

import pytest

from siqvl.data.schema import Row, RowKind
from siqvl.errors import UserError
from siqvl.recipe import Source
from tests.data.made_pictures import picture
from tests.data.sources.published_files import read, texts

ASKED = {"question": "Which colour?"}
LLAVA = [{"from": "human", "value": "Which?"}, {"from": "gpt", "value": "blue"}]
CHAT = [{"role": "user", "content": "Which?"}, {"role": "assistant", "content": "blue"}]


def one(tmp_path: Path, record: dict[str, Any], kind: RowKind = RowKind.SFT, **keys: Any) -> Row:
    """What a table of this one row is read as."""
    for name, colour in (("0.png", "red"), ("1.png", "blue")):
        (tmp_path / name).write_bytes(picture(colour))
    file = tmp_path / "rows.jsonl"
    file.write_text(json.dumps(ASKED | record) + "\n", encoding="utf-8")
    (row,) = read(Source(kind="table", path=str(file), **keys), kind)
    return row


def test_the_answer_is_learnt_where_there_are_others_beside_it(tmp_path: Path) -> None:
    """`answers` are what else counts as right: VQA sets publish both."""
    said = {"answer": "red", "answers": ["crimson", "crimson", "red"]}
    assert texts(one(tmp_path, said), "completion") == ["red"]
    row = one(tmp_path, said, RowKind.EVALUATION)
    assert row["answers"] == said["answers"]


@pytest.mark.parametrize("answer", [1, "B", "green"])
@pytest.mark.parametrize("kind", [RowKind.SFT, RowKind.EVALUATION])
def test_an_answer_that_is_none_of_the_answers_is_refused(
    tmp_path: Path, answer: object, kind: RowKind
) -> None:
    """`answers` may be the options that `answer` is the number of."""
    row = one(tmp_path, {"answer": answer, "answers": ["red", "blue"]}, kind)
    assert row["damaged"] == (
        f"`answer` is '{answer}', which is none of its `answers`, [red, blue]: map the one that is "
        "meant in `columns`, and options to `choices`"
    )


@pytest.mark.parametrize("answer", [None, "", [], float("nan")])
def test_an_empty_answer_leaves_the_answers(tmp_path: Path, answer: object) -> None:
    row = one(tmp_path, {"answer": answer, "answers": ["red", "blue", "blue"]})
    assert texts(row, "completion") == ["blue"]


def test_the_answer_beside_others_is_a_choice_too(tmp_path: Path) -> None:
    said = {"answer": "B", "answers": ["A", "B"], "choices": ["red", "blue"]}
    assert texts(one(tmp_path, said, choices_are="letter"), "completion") == ["blue"]


def test_of_several_choices_in_one_answer_none_is_learnt(tmp_path: Path) -> None:
    """All of them together are the answer of such a question, as in "tick all that apply"."""
    said = {"answer": ["A", "C"], "choices": ["red", "blue", "green"]}
    assert one(tmp_path, said, choices_are="letter")["damaged"] == (
        "`answer` holds 2 choices, red, green: questions with several right choices at once are "
        "not read; where each of them is right by itself, map it to `answers`"
    )
    row = one(tmp_path, {"label": ["A", "C"], "choices": said["choices"]},
              choices_are="letter", columns={"answers": "label"})  # fmt: skip
    assert texts(row, "completion") == ["red"]


SAID = {
    "conversations": {"conversations": LLAVA},
    "messages": {"messages": CHAT},
    "prompt": {"prompt": "Which?", "completion": "blue"},
    "instruction": {"instruction": "Which?", "output": "blue"},
    "query": {"query": "Which?", "response": "blue"},
}


@pytest.mark.parametrize("name", SAID)
def test_an_answer_beside_a_conversation_that_answers_otherwise_is_refused(
    tmp_path: Path, name: str
) -> None:
    row = one(tmp_path, {"answer": "red"} | SAID[name])
    assert row["damaged"] == (
        f"`question` with its answer, and `{name}`, are filled, and differ: map the one that is "
        "meant in `columns`"
    )
    assert texts(one(tmp_path, {"answer": "blue"} | SAID[name]), "completion") == ["blue"]
    mapped = one(tmp_path, {"label": "red"} | SAID[name], columns={"answer": "label"})
    assert texts(mapped, "completion") == ["red"]


def test_what_does_not_answer_says_nothing_else(tmp_path: Path) -> None:
    said = {"answer": "red", "messages": CHAT[:1], "prompt": "Look, and answer.", "response": "no"}
    assert texts(one(tmp_path, said), "completion") == ["red"]


@pytest.mark.parametrize(
    ("answer", "choices_are"), [("B", "letter"), ("<image 1>", "text"), (1, "index0")]
)
def test_where_choices_are_pictures_their_letter_is_learnt(
    tmp_path: Path, answer: object, choices_are: str
) -> None:
    """A mark is no text to learn: pictures are in the order of their marks, and have no numbers."""
    said = {"images": ["0.png", "1.png"], "choices": ["<image 2>", "<image 1>"], "answer": answer}
    row = one(tmp_path, said, choices_are=choices_are)
    assert row["images"] == [picture("blue"), picture("red")]
    (asked,) = texts(row, "prompt")
    assert asked.replace(" ", "") == "Whichcolour?\nOptions:\nA.<image>\nB.<image>"
    assert texts(row, "completion") == ["B"]


def test_choices_that_are_the_same_mark_are_refused(tmp_path: Path) -> None:
    said = {"images": ["0.png", "1.png"], "choices": ["<image>", "<image>"], "answer": 1}
    assert one(tmp_path, said, choices_are="index0")["damaged"] == (
        "two of its choices are `<image>`: number the marks, `<image 1>`, to tell them apart"
    )


@pytest.mark.parametrize(("value", "text"), [(3.0, "3"), (2.5, "2.5"), (7, "7"), ("3.0", "3.0")])
def test_what_is_said_is_written_out_as_an_answer_is(
    tmp_path: Path, value: object, text: str
) -> None:
    """pandas makes whole numbers floats where one is missing."""
    for said in (
        {"completion": value, "prompt": "?"},
        {"messages": [CHAT[0], {"role": "assistant", "content": value}]},
        {"answer": value},
    ):
        assert texts(one(tmp_path, said), "completion") == [text]


def mixed(tmp_path: Path, *splits: object, **keys: Any) -> list[str]:
    """The answers of a file whose rows say their splits."""
    file = tmp_path / "problems.json"
    rows = [ASKED | {"answer": f"{i}", "split": split} for i, split in enumerate(splits)]
    file.write_text(json.dumps(rows), encoding="utf-8")
    found = read(Source(kind="table", path=str(file), **keys), RowKind.SFT)
    return [texts(row, "completion")[0] for row in found]


def test_rows_of_several_splits_are_not_read_as_one(tmp_path: Path) -> None:
    """ScienceQA and TabMWP say the split of a row in a column."""
    with pytest.raises(UserError) as caught:
        mixed(tmp_path, "train", "train", "test")
    assert caught.value.message.endswith(
        "problems.json has rows of several splits: its column `split` holds train and test; say "
        "which are read, as in `where: {split: train}`"
    )
    assert mixed(tmp_path, "train", "test", "train", where={"split": "train"}) == ["0", "2"]
    assert mixed(tmp_path, "train", "test", where={"split": ["train", "test"]}) == ["0", "1"]


@pytest.mark.parametrize("splits", [("dev1k", "dev1k"), (None, "train"), ("easy", "hard", "test")])
def test_a_column_called_split_may_hold_one_split_or_something_else(
    tmp_path: Path, splits: tuple[object, ...]
) -> None:
    assert len(mixed(tmp_path, *splits)) == len(splits)
