"""ScienceQA, A-OKVQA, LLaVA-CoT: rationales, and the two ways to ask a question."""

import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from siqvl.data import sources
from siqvl.data.schema import REASONING_PROMPT, RowKind
from siqvl.errors import UserError
from siqvl.recipe import Source
from tests.data.made_pictures import picture
from tests.data.sources.published_files import IMAGE_TYPE, read, texts, write_json, write_parquet

JPEG = picture(format="JPEG")
IMAGE = {"bytes": JPEG, "path": None}
TEXT, TEXTS = pa.string(), pa.list_(pa.string())

#: derek-thomas/ScienceQA, features of its card.
SCIENCE_TYPES = {
    "image": IMAGE_TYPE,
    "question": TEXT,
    "choices": TEXTS,
    "answer": pa.int8(),
    **dict.fromkeys(("hint", "task", "grade", "subject", "topic", "category", "skill"), TEXT),
    "lecture": TEXT,
    "solution": TEXT,
}
SCIENCE: dict[str, Any] = {
    "image": IMAGE,
    "question": "Which of these states is farthest north?",
    "choices": ["West Virginia", "Louisiana", "Arizona", "Oklahoma"],
    "answer": 0,
    "hint": "",
    "task": "closed choice",
    "grade": "grade2",
    "subject": "social science",
    "topic": "geography",
    "category": "Geography",
    "skill": "Read a map: cardinal directions",
    "lecture": "Maps have four cardinal directions.",
    "solution": "West Virginia is farthest north.",
}
ASKED = "\nOptions: West Virginia, Louisiana, Arizona, Oklahoma"

#: HuggingFaceM4/A-OKVQA, features of the script that made it: the answers are text.
KNOWLEDGE_TYPES = {
    "image": IMAGE_TYPE,
    "question_id": TEXT,
    "question": TEXT,
    "choices": TEXTS,
    "correct_choice_idx": pa.int8(),
    "direct_answers": TEXT,
    "difficult_direct_answer": pa.bool_(),
    "rationales": TEXTS,
}
#: allenai/aokvqa, the example of its README.
KNOWLEDGE: dict[str, Any] = {
    "split": "train",
    "image_id": 299207,
    "question_id": "22MexNkBPpdZGX6sxbxVBH",
    "question": "What is the man by the bags awaiting?",
    "choices": ["skateboarder", "train", "delivery", "cab"],
    "correct_choice_idx": 3,
    "direct_answers": ["ride", "ride", "bus", "taxi", "travelling", "cab", "cab", "traffic"],
    "difficult_direct_answer": False,
    "rationales": ["A train would not be on the street.", "He wants a cab.", "He has bags."],
}


def science(tmp_path: Path, subsets: list[str], **columns: Any) -> Source:
    file = tmp_path / "data" / "train-00000-of-00001.parquet"
    write_parquet(file, [SCIENCE | columns], **SCIENCE_TYPES)
    return Source(kind="scienceqa", path=str(tmp_path), subsets=subsets)


def test_scienceqa_with_and_without_its_solution(tmp_path: Path) -> None:
    both = read(science(tmp_path, []), RowKind.SFT)
    question = SCIENCE["question"] + ASKED
    assert [texts(row, "prompt") for row in both] == [[question + REASONING_PROMPT], [question]]
    assert [texts(row, "completion") for row in both] == [
        ["West Virginia is farthest north.\nAnswer: West Virginia"],
        ["West Virginia"],
    ]
    assert [row["id"] for row in both] == [
        "scienceqa/reasoning/train/0000000",
        "scienceqa/direct/train/0000000",
    ]
    for form, row in zip(("reasoning", "direct"), both, strict=True):
        assert read(science(tmp_path, [form]), RowKind.SFT) == [row]
    assert json.loads(both[0]["meta"])["lecture"] == SCIENCE["lecture"]
    assert sources.size(science(tmp_path, []), RowKind.SFT, 0) == 2
    assert sources.size(science(tmp_path, ["direct"]), RowKind.SFT, 0) == 1


def test_scienceqa_without_solution_or_picture(tmp_path: Path) -> None:
    (row,) = read(science(tmp_path, ["reasoning"], solution="", image=None), RowKind.SFT)
    assert texts(row, "completion") == ["West Virginia"]
    assert row["images"] == []
    left_out, row = read(science(tmp_path, [], solution=None), RowKind.SFT)
    assert left_out["left_out"] == "no rationale: only asked for a direct answer"
    assert texts(row, "completion") == ["West Virginia"]


def test_scienceqa_is_asked_once_to_be_judged_with_its_hint(tmp_path: Path) -> None:
    source = science(tmp_path, [], hint="Look at the map.", answer=2)
    (row,) = read(source, RowKind.EVALUATION)
    assert row["question"] == f"Look at the map.\n{SCIENCE['question']}{ASKED}"
    assert (row["answers"], row["choices"]) == (["Arizona"], SCIENCE["choices"])
    assert row["benchmark"] == "scienceqa"


@pytest.mark.parametrize("answer", [4, -1, None])
def test_an_answer_that_is_no_choice_is_empty(answer: Any, tmp_path: Path) -> None:
    (row,) = read(science(tmp_path, ["direct"], answer=answer), RowKind.SFT)
    assert texts(row, "completion") == [""]


@pytest.mark.parametrize("choice", ["", None])
def test_a_missing_choice_does_not_shift_the_others(choice: Any, tmp_path: Path) -> None:
    published = science(tmp_path, ["direct"], choices=[choice, "Louisiana", "Arizona"], answer=1)
    (row,) = read(published, RowKind.SFT)
    assert texts(row, "completion") == [""]  # and so quarantined, not "Arizona"


def test_ways_to_ask_are_named(tmp_path: Path) -> None:
    with pytest.raises(UserError) as error:
        sources.check(science(tmp_path, ["cot"]), RowKind.SFT)
    assert error.value.message == (
        "source `scienceqa`: unknown subset `cot`; it has reasoning, direct"
    )
    with pytest.raises(UserError, match="unknown subset `direct`; it has none"):
        sources.check(science(tmp_path, ["direct"]), RowKind.EVALUATION)


@pytest.fixture
def aokvqa_hub(tmp_path: Path) -> Source:
    """`push_to_hub` cast the list of answers to text."""
    row = KNOWLEDGE | {"image": IMAGE, "direct_answers": str(KNOWLEDGE["direct_answers"])}
    write_parquet(tmp_path / "data" / "train-00000-of-00002.parquet", [row], **KNOWLEDGE_TYPES)
    return Source(kind="a_okvqa", path=str(tmp_path))


@pytest.fixture
def aokvqa_download(tmp_path: Path) -> Source:
    write_json(tmp_path / "aokvqa" / "aokvqa_v1p0_train.json", [KNOWLEDGE])
    (tmp_path / "coco" / "train2017").mkdir(parents=True)
    (tmp_path / "coco" / "train2017" / "000000299207.jpg").write_bytes(JPEG)
    return Source(kind="a_okvqa", path=str(tmp_path))


@pytest.mark.parametrize("layout", ["aokvqa_hub", "aokvqa_download"])
def test_aokvqa_from_both_layouts(layout: str, request: pytest.FixtureRequest) -> None:
    source = request.getfixturevalue(layout)
    question = "What is the man by the bags awaiting?\nOptions: skateboarder, train, delivery, cab"
    reasoned, direct = read(source, RowKind.SFT)
    assert texts(reasoned, "prompt") == [question + REASONING_PROMPT]
    assert texts(reasoned, "completion") == ["A train would not be on the street.\nAnswer: cab"]
    assert (texts(direct, "prompt"), texts(direct, "completion")) == ([question], ["cab"])
    (row,) = read(source, RowKind.EVALUATION)
    assert row["id"] == "a_okvqa/train/22MexNkBPpdZGX6sxbxVBH"
    assert (row["answers"], row["choices"]) == (["cab"], KNOWLEDGE["choices"])
    assert json.loads(row["meta"])["direct_answers"] == KNOWLEDGE["direct_answers"]
    assert row["images"] == [JPEG]
    assert sources.size(source, RowKind.SFT, 0) == 2


def tagged(answer: str) -> str:
    return (
        "<SUMMARY> I count. </SUMMARY>\n\n<CAPTION> Two dots. </CAPTION>\n\n"
        f"<REASONING> One, two. </REASONING>\n\n<CONCLUSION> {answer} </CONCLUSION>"
    )


def llava_cot(folder: Path, *answers: str, subsets: tuple[str, ...] = ()) -> Source:
    """The layout of Xkev/LLaVA-CoT-100k: train.jsonl, and pictures in folders beside it."""
    (folder / "chartqa" / "train").mkdir(parents=True, exist_ok=True)
    (folder / "chartqa" / "train" / "1.png").write_bytes(picture())
    turns = []
    for number, answer in enumerate(answers):
        mark = "<image>\n" if number == 0 else ""
        turns.append({"from": "human", "value": f"{mark}How many {number}?"})
        turns.append({"from": "gpt", "value": answer})
    row = {"id": "chartqa_1", "image": "chartqa/train/1.png", "conversations": turns}
    (folder / "train.jsonl").write_text(json.dumps(row) + "\n")
    return Source(kind="llava_cot", path=str(folder / "train.jsonl"), subsets=list(subsets))


def test_llava_cot_in_both_ways(tmp_path: Path) -> None:
    reasoned, direct = read(llava_cot(tmp_path, tagged("2")), RowKind.SFT)
    assert texts(reasoned, "prompt") == ["How many 0?" + REASONING_PROMPT]
    assert texts(reasoned, "completion") == ["I count.\nTwo dots.\nOne, two.\nAnswer: 2"]
    assert (texts(direct, "prompt"), texts(direct, "completion")) == (["How many 0?"], ["2"])
    assert reasoned["images"] == [picture()]
    assert json.loads(reasoned["meta"])["published_id"] == "chartqa_1"


def test_llava_cot_earlier_turns_are_asked_alike(tmp_path: Path) -> None:
    source = llava_cot(tmp_path, tagged("2"), tagged("3"), subsets=("direct",))
    (row,) = read(source, RowKind.SFT)
    assert texts(row, "prompt") == ["How many 0?", "2", "How many 1?"]
    assert texts(row, "completion") == ["3"]
    source = llava_cot(tmp_path, tagged("2"), tagged("3"), subsets=("reasoning",))
    (row,) = read(source, RowKind.SFT)
    steps = "I count.\nTwo dots.\nOne, two.\nAnswer: "
    assert texts(row, "prompt") == [
        "How many 0?" + REASONING_PROMPT,
        steps + "2",
        "How many 1?" + REASONING_PROMPT,
    ]
    assert texts(row, "completion") == [steps + "3"]


def test_llava_cot_without_a_conclusion_is_damaged(tmp_path: Path) -> None:
    source = llava_cot(tmp_path, "<REASONING> One, two.", subsets=("reasoning",))
    (row,) = read(source, RowKind.SFT)
    assert row["damaged"] == "no <CONCLUSION> in its answer"
