"""Tables with the columns that are published on the hub, as small local files."""

import json
from datetime import date, datetime
from decimal import Decimal

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from siqvl.data import sources
from siqvl.data.encode import encode_preference, encode_sft
from siqvl.data.preparation.prepare import prepare
from siqvl.data.schema import REASONING_PROMPT, Row, RowKind
from siqvl.data.sources.reading.published import Published
from siqvl.data.sources.tables.table import Table
from siqvl.errors import UserError
from siqvl.recipe import DataPrep, Source
from tests.data.made_pictures import picture

RED, BLUE = picture("red"), picture("blue", format="JPEG")
IMAGE = {"bytes": RED, "path": None}


def write(path, rows):
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.Table.from_pylist(rows), path)


TEN = [
    {"answer": a, "answer_confidence": "yes", "answer_id": i}
    for i, a in enumerate(["net"] * 7 + ["netting", "mesh", "net"])
]
TABLES = {
    "vqav2": (
        {"image": IMAGE, "question": "What?", "answers": TEN, "multiple_choice_answer": "net"}
        | {"question_id": 458752000, "question_type": "what"},
        {"id": "question_id"},
        ("What?", "net"),
    ),
    "textvqa": (
        {"image": IMAGE, "image_id": "a1", "question_id": 34602, "question": "what brand?"}
        | {"answers": ["nokia", "Nokia", "nokia"], "image_classes": ["Belt"]},
        {},
        ("what brand?", "nokia"),
    ),
    "gqa": (
        {"image": IMAGE, "question": "Is it red?", "answer": "yes", "fullAnswer": "Yes, it is."},
        {"answer": "fullAnswer"},
        ("Is it red?", "Yes, it is."),
    ),
    "scienceqa": (
        {"image": IMAGE, "question": "Which?", "choices": ["iron", "gold"], "answer": 1},
        {},
        ("Which?\nOptions: iron, gold", "gold"),
    ),
    "reasons": (
        {"image": IMAGE, "q": "How many?", "a": "2", "why": "One and one."},
        {"question": "q", "answer": "a", "reasoning": "why"},
        ("How many?" + REASONING_PROMPT, "One and one.\nAnswer: 2"),
    ),
    "llava_cot": (
        {
            "image": IMAGE,
            "conversations": [
                {"from": "human", "value": "<image>\nHow many?"},
                {
                    "from": "gpt",
                    "value": "<SUMMARY> I count. </SUMMARY>\n\n<CAPTION> Two dots. </CAPTION>\n\n"
                    "<REASONING> One, two. </REASONING>\n\n<CONCLUSION> 2 </CONCLUSION>",
                },
            ],
        },
        {},
        ("How many?" + REASONING_PROMPT, "I count.\nTwo dots.\nOne, two.\nAnswer: 2"),
    ),
}


@pytest.mark.parametrize("name", TABLES)
def test_supervised_rows(name, tmp_path, processor):
    record, columns, (prompt, completion) = TABLES[name]
    write(tmp_path / f"{name}.parquet", [record])
    path = str(tmp_path / f"{name}.parquet")
    choices_are = "index0" if "choices" in record else None  # one row does not tell it
    source = Source(kind="table", path=path, columns=columns, choices_are=choices_are)
    sources.check(source, RowKind.SFT)
    (row,) = sources.rows(source, RowKind.SFT, 0)
    assert (row["prompt"][-1]["content"], row["completion"][0]["content"]) == (prompt, completion)
    assert row["images"] == [RED]
    assert row["source"] == name
    encoded = encode_sft(row, processor)
    learned = processor.tokenizer.decode([label for label in encoded.labels if label != -100])
    assert learned == completion + "<|im_end|>"
    assert prepare([source], RowKind.SFT, tmp_path / "out", data=DataPrep(), seed=0).rows == 1


def test_all_ten_answers_are_kept(tmp_path):
    record, columns, _ = TABLES["vqav2"]
    write(tmp_path / "validation-00000-of-00001.parquet", [record])
    source = Source(kind="table", path=str(tmp_path), split="validation", columns=columns)
    (row,) = sources.rows(source, RowKind.EVALUATION, 0)
    assert row["answers"] == [one["answer"] for one in TEN]
    assert row["id"].endswith("/validation/458752000")
    assert row["split"] == "validation"
    (row,) = sources.rows(source, RowKind.SFT, 0)
    assert json.loads(row["meta"])["answers"] == [one["answer"] for one in TEN]


@pytest.mark.parametrize(
    ("record", "columns"),
    [
        (  # openbmb/RLAIF-V-Dataset
            {
                "ds_name": "d",
                "image": IMAGE,
                "question": "What?",
                "chosen": "a cat",
                "rejected": "a dog",
            },
            {},
        ),
        (  # openbmb/RLHF-V-Dataset: one column of JSON
            {
                "image": IMAGE,
                "text": json.dumps({"question": "What?", "chosen": "a cat", "rejected": "a dog"}),
            },
            {"question": "text.question", "chosen": "text.chosen", "rejected": "text.rejected"},
        ),
        (  # conversations on both sides
            {
                "images": [IMAGE],
                "question": "What?",
                "chosen": [
                    {"role": "user", "content": "What?"},
                    {"role": "assistant", "content": "a cat"},
                ],
                "rejected": [
                    {"role": "user", "content": "What?"},
                    {"role": "assistant", "content": "a dog"},
                ],
            },
            {},
        ),
    ],
)
def test_preference_rows(record, columns, tmp_path, processor):
    write(tmp_path / "t.parquet", [record])
    source = Source(kind="table", path=str(tmp_path), columns=columns)
    sources.check(source, RowKind.PREFERENCE)
    (row,) = sources.rows(source, RowKind.PREFERENCE, 0)
    texts = [row[side][0]["content"] for side in ("prompt", "chosen", "rejected")]
    assert texts == ["What?", "a cat", "a dog"]
    for side, text in zip(encode_preference(row, processor), texts[1:], strict=True):
        learned = processor.tokenizer.decode([label for label in side.labels if label != -100])
        assert learned == text + "<|im_end|>"


def test_images_beside_json_lines_and_csv(tmp_path):
    (tmp_path / "pictures").mkdir()
    (tmp_path / "pictures" / "a.jpg").write_bytes(BLUE)
    record = {"image": "pictures/a.jpg", "question": "What?", "answer": "blue"}
    (tmp_path / "rows.jsonl").write_text(
        json.dumps(record) + "\n\n" + json.dumps(record | {"image": "no.jpg"})
    )
    (tmp_path / "rows.csv").write_text("image,question,answer\npictures/a.jpg,What?,blue\n")
    lines = Source(kind="table", path=str(tmp_path / "rows.jsonl"))
    good, bad = sources.rows(lines, RowKind.SFT, 0)
    assert good["images"] == [BLUE]
    assert bad["images"] == ["no.jpg"]
    (row,) = sources.rows(Source(kind="table", path=str(tmp_path / "rows.csv")), RowKind.SFT, 0)
    assert row["images"] == [BLUE]
    with pytest.raises(UserError, match=r"`no image data` \(1 times, .*: no picture at no.jpg"):
        prepare([lines], RowKind.SFT, tmp_path / "out", data=DataPrep(), seed=0)


@pytest.mark.parametrize(
    ("columns", "kind", "message"),
    [
        (
            {"answer": "label"},
            RowKind.SFT,
            "no column `label` for `answer`; {path} has image, question, solution",
        ),
        (
            {},
            RowKind.SFT,
            "sft rows need `answer` or `answers` or `conversations` or `messages` or `completion` "
            "or `output` or `response`: map it in `columns`; "
            "{path} has image, question, solution",
        ),
        (
            {"chosen": "solution"},
            RowKind.PREFERENCE,
            "preference rows need `rejected` or `rejected_response`: map it in `columns`; "
            "{path} has image, question, solution",
        ),
        (
            {"picture": "image"},
            RowKind.SFT,
            "unknown field `picture` in `columns`; known are id, image, images, question, answer, "
            "answers, choices, reasoning, conversations, messages, prompt, completion, chosen, "
            "rejected, instruction, input, output, history, system, query, response, "
            "rejected_response, type, group",
        ),
    ],
)
def test_missing_columns_are_named_with_those_there_are(tmp_path, columns, kind, message):
    path = tmp_path / "t.parquet"
    write(path, [{"image": IMAGE, "question": "What?", "solution": "x"}])
    with pytest.raises(UserError) as error:
        sources.check(Source(kind="table", path=str(path), columns=columns), kind)
    assert error.value.message == "source `table`: " + message.format(path=path)


def test_a_damaged_file_is_named(tmp_path):
    (tmp_path / "t.parquet").write_bytes(b"PAR1 no")
    with pytest.raises(UserError, match=r"t\.parquet cannot be read"):
        sources.check(Source(kind="table", path=str(tmp_path)), RowKind.SFT)


READ = [
    (1, ["car", "bus"], "index0", "bus"),
    ("1", '["car", "bus"]', "index0", "bus"),  # a CSV has no numbers
    (1.0, ["car", "bus"], "index0", "bus"),  # pandas, where one is missing
    (1, ["car", "bus"], "index1", "car"),
    ("B", "['car', 'bus']", "letter", "bus"),  # pandas writes Python's lists
    ("(b)", {"A": "car", "B": "bus"}, "letter", "bus"),
    (2, ["1", "2"], "text", "2"),
    (True, ["True", "False"], "text", "True"),
    (0.5, None, None, "0.5"),
    (3.0, None, None, "3"),
    (True, None, None, "True"),
    (Decimal("1.50"), None, None, "1.50"),
    (date(2026, 11, 29), None, None, "2026-11-29"),
    (datetime(2026, 11, 29, 8, 30), None, None, "2026-11-29T08:30:00"),
    ("[12, 30]", None, None, "[12, 30]"),
    ('{"total": "3.50"}', None, None, '{"total": "3.50"}'),
    ("N/A", None, None, "N/A"),
    (float("nan"), None, None, ""),
    (float("nan"), ["car", "bus"], None, ""),
    ([], None, None, ""),
]


def shaped(
    answer: object, choices: object, choices_are: str | None = None, **fields: object
) -> Row:
    record = {"image": IMAGE, "question": "What?", "answer": answer, "choices": choices} | fields
    source = Source(kind="table", choices_are=choices_are)
    (way,) = Table().ways(source, RowKind.SFT)
    return way(Published(record, source, "set", 0, None))


@pytest.mark.parametrize(("answer", "choices", "choices_are", "completion"), READ)
def test_answers_come_in_several_shapes(
    answer: object, choices: object, choices_are: str | None, completion: str
) -> None:
    row = shaped(answer, choices, choices_are)
    assert [turn["content"] for turn in row["completion"]] == [completion] * bool(completion)


@pytest.mark.parametrize(
    ("answer", "choices", "choices_are", "reason"),
    [
        (2, ["car", "bus"], "index0", "answer '2' is none of its choices, [car, bus], read as "
         "the number of a choice, from 0"),
        ("C", ["car", "bus"], "letter", "answer 'C' is none of its choices, [car, bus], read as "
         "the letter of a choice"),
        ("van", ["car", "bus"], None, "answer 'van' is none of its choices, [car, bus], read as "
         "the text of a choice"),
        ("9" * 5_000, ["car", "bus"], "index0", f"answer '{'9' * 80}' is none of its choices"),
        ("car", ["car", None, "bus"], None, "choice 2 of 3 is empty"),
        ("car", "car, bus", None, "choices is the text 'car, bus', expected a list"),
        ("a", "['a' 'b']", None, "choices is no JSON and no Python list: \"['a' 'b']\"; numpy's "
         "way of printing is not read, write its `tolist()`"),
        ("a", {"text": ["a"]}, None, "choices is an object of text, expected a list; reach into "
         "it with a dot, as in `choices: choices.text`"),
        ({"x": 1}, None, None, "answer is an object, expected a text or a number"),
        (b"x", None, None, "answer is bytes, expected a text or a number"),
    ],
)  # fmt: skip
def test_what_has_no_right_reading_is_said(
    answer: object, choices: object, choices_are: str | None, reason: str
) -> None:
    assert shaped(answer, choices, choices_are)["damaged"].startswith(reason)


@pytest.mark.parametrize(
    ("reasoning", "completion"),
    [
        (["A bus is red.", "It has wheels."], "A bus is red.\nAnswer: bus"),  # A-OKVQA
        ('["A bus is red."]', '["A bus is red."]\nAnswer: bus'),
        ("A bus is red.", "A bus is red.\nAnswer: bus"),  # ScienceQA
        ("", "bus"),
        ([], "bus"),
        (None, "bus"),
    ],
)
def test_written_steps_come_in_several_shapes(reasoning: object, completion: str) -> None:
    row = shaped(1, ["car", "bus"], "index0", reasoning=reasoning)
    assert row["completion"][0]["content"] == completion
    asked = "What?\nOptions: car, bus"
    steps = REASONING_PROMPT if completion != "bus" else ""
    assert row["prompt"][0]["content"] == asked + steps
