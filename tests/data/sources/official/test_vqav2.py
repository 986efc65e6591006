"""VQAv2: the hub's columns."""

import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from siqvl.data import sources
from siqvl.data.schema import RowKind
from siqvl.errors import UserError
from siqvl.recipe import Source
from tests.data.made_pictures import picture
from tests.data.sources.published_files import IMAGE_TYPE, read, texts, write_json, write_parquet

QUESTIONS = "v2_OpenEnded_mscoco_train2014_questions.json"
ANNOTATIONS = "v2_mscoco_train2014_annotations.json"
ANSWERS = ["down"] * 6 + ["at table", "skateboard", "table", "table"]
#: lmms-lab/VQAv2: columns and types of its viewer; the row is its first validation question.
TYPES = {
    "question_type": pa.string(),
    "multiple_choice_answer": pa.string(),
    "answers": pa.list_(
        pa.struct(
            [("answer", pa.string()), ("answer_confidence", pa.string()), ("answer_id", pa.int64())]
        )
    ),
    "image_id": pa.int64(),
    "answer_type": pa.string(),
    "question_id": pa.int64(),
    "question": pa.string(),
    "image": IMAGE_TYPE,
}


def test_the_hubs_columns(tmp_path: Path) -> None:
    row: dict[str, Any] = {
        "question_type": "none of the above",
        "multiple_choice_answer": "down",
        "answers": [
            {"answer": one, "answer_confidence": "yes", "answer_id": number}
            for number, one in enumerate(ANSWERS, 1)
        ],
        "image_id": 262148,
        "answer_type": "other",
        "question_id": 262148000,
        "question": "Where is he looking?",
        "image": {"bytes": picture(), "path": None},
    }
    write_parquet(tmp_path / "data" / "validation-00000-of-00001.parquet", [row], **TYPES)
    source = Source(kind="vqav2", path=str(tmp_path), split="validation")
    (found,) = read(source, RowKind.EVALUATION)
    assert (found["id"], found["answers"]) == ("vqav2/validation/262148000", ANSWERS)
    assert json.loads(found["meta"])["answer_type"] == "other"
    assert found["images"] == [picture()]
    (found,) = read(source, RowKind.SFT)
    assert texts(found, "completion") == ["down"]


@pytest.mark.parametrize("split", ["test", "testdev"])
def test_splits_without_answers_are_refused(split: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=f"the answers of split `{split}` are not published"):
        sources.check(Source(kind="vqav2", path=str(tmp_path), split=split), RowKind.EVALUATION)


def test_half_a_download_is_named(tmp_path: Path) -> None:
    write_json(tmp_path / QUESTIONS, {"questions": []})
    source = Source(kind="vqav2", path=str(tmp_path))
    with pytest.raises(UserError, match="has no annotations of train2014; they come in two files"):
        sources.check(source, RowKind.SFT)
    write_json(tmp_path / ANNOTATIONS, {"answers": []})
    with pytest.raises(UserError, match="has no list `annotations`"):
        read(source, RowKind.SFT)
    (tmp_path / ANNOTATIONS).write_text('{"annotations": [')
    with pytest.raises(UserError, match=f"{ANNOTATIONS} is not valid JSON"):
        read(source, RowKind.SFT)


def test_columns_cannot_be_renamed(tmp_path: Path) -> None:
    source = Source(kind="vqav2", path=str(tmp_path), columns={"question": "q"})
    with pytest.raises(UserError, match="leave out `columns`, or take kind `table`"):
        sources.check(source, RowKind.SFT)
