"""Marks of pictures are counted and ordered in every adapter, and read as they are in questions."""

import json
from pathlib import Path
from typing import Any

import pytest

from siqvl.data import sources
from siqvl.data.preparation.checks import check_row
from siqvl.data.preparation.prepare import prepare
from siqvl.data.schema import Row, RowKind, evaluation_row, preference_row, sft_row, with_options
from siqvl.data.sources.reading.picture_marks import placed
from siqvl.errors import UserError
from siqvl.evaluation.letters import lettered
from siqvl.evaluation.scoring.meant_option import place_meant
from siqvl.recipe import DataPrep, Source
from tests.data.made_pictures import picture
from tests.data.sources.published_files import read, write_json, write_parquet

RED, BLUE = picture("red"), picture("blue")
IMAGE = {"bytes": RED, "path": None}
TWO_MARKS = "2 <image> marks in its text, but 1 pictures"


def puzzle(question: str) -> dict[str, Any]:
    words = {"caption": "c", "explanation": "e", "deduction": "It is 2."}
    return {"image": "images/a.png", "question": question, "options": [2, 3], "answer": 2, **words}


def official(kind: str, question: str, folder: Path) -> Source:
    """A set of one question about one picture, as its authors publish it."""
    path, more = folder / kind, {}
    if kind == "easy_vqa":
        write_json(path / "train" / "questions.json", [[question, "yes", 0]])
        (path / "train" / "images").mkdir()
        (path / "train" / "images" / "0.png").write_bytes(RED)
    elif kind == "gqa":
        asked = {"1": {"imageId": "5", "question": question, "answer": "dog"}}
        write_json(path / "train_balanced_questions.json", asked)
        (path / "5.jpg").write_bytes(RED)
        more = {"subsets": ["train_balanced"]}
    elif kind == "puzzlevqa":
        (path / "images").mkdir(parents=True)
        (path / "size.json").write_text(json.dumps(puzzle(question)))
        (path / "images" / "a.png").write_bytes(RED)
    elif kind == "scienceqa":
        asked = {"image": IMAGE, "question": question, "choices": ["a", "b"], "answer": 1}
        write_parquet(
            path / "train.parquet", [asked | {"hint": "", "solution": "s", "lecture": ""}]
        )
    elif kind in ("rlaif_v", "rlhf_v"):
        pair = {"question": question, "chosen": "a", "rejected": "b"}
        columns = pair if kind == "rlaif_v" else {"text": json.dumps(pair)}
        write_parquet(path / "train.parquet", [{"image": IMAGE, "idx": 1} | columns])
    elif kind == "finevision":
        texts = [{"user": question, "assistant": "yes"}]
        write_parquet(path / "train.parquet", [{"images": [IMAGE], "texts": texts}])
    else:
        asked = {"image": IMAGE, "question_id": 1, "question": question, "answers": ["yes"] * 10}
        write_parquet(path / "train.parquet", [asked])
    return Source(kind=kind, path=str(path), **more)


KINDS = (
    *("easy_vqa", "gqa", "puzzlevqa", "scienceqa", "rlaif_v", "rlhf_v", "finevision"),
    *("vqav2", "textvqa"),
)


@pytest.mark.parametrize("kind", KINDS)
def test_marks_are_counted_in_every_adapter(kind: str, tmp_path: Path) -> None:
    for number, (question, reason) in enumerate(
        [
            ("Is <image> or <image> it?", TWO_MARKS),
            ("Is <image 1> or <image2> it?", "2 numbered marks in its text (<image 1>, <image2>)"),
            ("Is it in <image 1>?", None),
            ("<image>\nIs it?", None),
        ]
    ):
        source = official(kind, question, tmp_path / f"{number}")
        for row_kind in sources.SOURCES[kind].kinds:
            row, *_ = read(source, row_kind)
            if reason:
                assert row["damaged"].startswith(reason)
                continue
            asked = row["question"] if "question" in row else row["prompt"][0]["content"]
            assert asked.startswith("Is it in <image>?" if "1" in question else "Is it?")
            assert row["images"] == [RED]
        if RowKind.EVALUATION in sources.SOURCES[kind].kinds:
            (row,) = read(source, RowKind.EVALUATION)
            (unpictured,) = sources.questions(source, 0)
            assert {**unpictured, "images": 0} == {**row, "images": 0}


def table(tmp_path: Path, record: dict[str, Any], kind: RowKind) -> Row:
    for name, data in (("red.png", RED), ("blue.png", BLUE)):
        (tmp_path / name).write_bytes(data)
    (tmp_path / "t.jsonl").write_text(json.dumps(record))
    (row,) = read(Source(kind="table", path=str(tmp_path / "t.jsonl")), kind)
    return row


@pytest.mark.parametrize("kind", [RowKind.SFT, RowKind.EVALUATION])
def test_options_that_are_pictures(kind: RowKind, tmp_path: Path) -> None:
    """As in MMMU: question and options are one text, and an option is known by its number."""
    record = {
        "images": ["red.png", "blue.png", "red.png"],
        "question": "Which fits <image 2>?",
        "choices": ["<image 1>", "<image 3>"],
        "answer": "<image 3>",
    }
    row = table(tmp_path, record, kind)
    assert row["images"] == [BLUE, RED, RED]
    asked = row["question"] if kind is RowKind.EVALUATION else row["prompt"][0]["content"]
    listing = with_options("", ["<image>", "<image>"], by_letter=True)
    assert asked.replace(" ", "") == f"Which fits <image>?{listing}".replace(" ", "")
    if kind is RowKind.EVALUATION:
        assert (row["choices"], row["answers"]) == (record["choices"], ["<image 3>"])
        by_letter = lettered(row["question"], row["choices"])
        assert by_letter.startswith("Which fits <image>?\nA. <image>\nB. <image>\n")
        assert place_meant("B", row["choices"]) == 1
    assert check_row(row, kind, DataPrep()).reason == ""


def test_a_number_that_is_named_twice_stays_text_in_its_options() -> None:
    choices = ["<image 1>", "<image 2>", "neither"]
    row = evaluation_row(
        *("r", [RED, BLUE], with_options("Is <image 1> like <image 2>, or is it", choices)),
        *([choices[2]],),
        choices=choices,
        **dict.fromkeys(("benchmark", "split", "source"), "x"),
    )
    found = placed(row)["question"]
    assert found == with_options("Is <image> like <image>, or is it", choices)
    by_letter = "\nA. <image 1>\nB. <image 2>\nC. neither\n"
    assert lettered(found, choices).startswith("Is <image> like <image>, or is it" + by_letter)


def test_options_that_nobody_lists_cannot_be_placed() -> None:
    about = dict.fromkeys(("benchmark", "split", "source"), "x")
    row = evaluation_row("r", [RED], "Which?", ["<image 1>"], choices=["<image 1>"], **about)
    reason = "its options mark pictures, but its question does not list them"
    assert placed(row) == {"id": "r", "source": "x", "damaged": reason}


def test_a_pairs_answers_mark_no_pictures() -> None:
    more = [{"role": role, "content": "<image>"} for role in ("assistant", "user", "assistant")]
    row = preference_row("r", [RED], "What?", more, "no", source="x")
    assert placed(row)["damaged"].startswith("`chosen` marks pictures, which belong into the prom")
    # what the assistant says is text
    row = preference_row("r", [RED], "What?", "<image> is", "<image> is not", source="x")
    assert placed(row) == row


def test_rows_of_other_packages_are_counted_too(made_source: Any, tmp_path: Path) -> None:
    good = sft_row("good", [RED], "See <image>: what?", "a", source="x")
    bad = sft_row("bad", [RED], "<image> and <image>", "a", source="x")
    odd: list[Any] = [None, {}, {"images": []}, {"images": [], "question": 7, "choices": 3}]
    odd += [{"images": [], "prompt": [{"role": "user"}, 3], "completion": None, "id": []}]
    found = list(sources.rows(made_source([good, bad, *odd]), RowKind.SFT, 0))
    assert found == [good, {"id": "bad", "source": "x", "damaged": TWO_MARKS}, *odd]


def test_what_was_not_placed_is_refused_where_rows_are_checked() -> None:
    row = sft_row("bad", [RED], "<image> and <image>", "a", source="x")
    checked = check_row(row, RowKind.SFT, DataPrep())
    assert (checked.reason, checked.detail) == (
        "marks and pictures differ",
        "2 <image> marks in its text, 1 pictures",
    )


def test_the_usual_row_is_the_same_with_its_mark_and_without(made_source: Any) -> None:
    """So hashes and fingerprints of such data stay what they were."""
    plain = sft_row("r", [RED], "What?", "a", source="x")
    with_mark = sft_row("r", [RED], "<image>\nWhat?", "a", source="x")
    (found,) = sources.rows(made_source([with_mark]), RowKind.SFT, 0)
    assert found == plain


def test_damaged_marks_stop_preparation_with_both_counts(made_source: Any, tmp_path: Path) -> None:
    rows = [sft_row("bad", [RED], "<image> and <image>", "a", source="x")]
    with pytest.raises(UserError, match=TWO_MARKS):
        prepare([made_source(rows)], RowKind.SFT, tmp_path / "out", data=DataPrep(), seed=0)
