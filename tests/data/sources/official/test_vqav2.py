"""VQAv2: three published questions with their photo, and the hub's columns."""

import json
import shutil
from collections import Counter
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from siqvl.data import sources
from siqvl.data.preparation.prepare import prepare
from siqvl.data.schema import RowKind
from siqvl.errors import UserError
from siqvl.recipe import DataPrep, Source
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


@pytest.fixture
def download(real_data: Path, tmp_path: Path) -> Path:
    """Published questions, annotations and photos under their official names."""
    fixtures = real_data / "allennlp_vision_fixtures"
    folder = tmp_path / "vqav2"
    folder.mkdir()
    shutil.copy(fixtures / "vqav2" / "questions.json", folder / QUESTIONS)
    shutil.copy(fixtures / "vqav2" / "annotations.json", folder / ANNOTATIONS)
    shutil.copytree(fixtures / "images" / "vqav2", folder / "train2014")
    return folder


def test_published_questions_with_their_ten_answers(download: Path, real_data: Path) -> None:
    source = Source(kind="vqav2", path=str(download))
    published = json.loads((download / QUESTIONS).read_text())["questions"]
    given = {
        one["question_id"]: [answer["answer"] for answer in one["answers"]]
        for one in json.loads((download / ANNOTATIONS).read_text())["annotations"]
    }
    rows = read(source, RowKind.EVALUATION)
    assert [row["id"] for row in rows] == [f"vqav2/train/{458752000 + n}" for n in range(3)]
    photo = (download / "train2014" / "COCO_train2014_000000458752.jpg").read_bytes()
    for row, asked in zip(rows, published, strict=True):
        assert row["question"] == asked["question"]
        assert row["answers"] == given[asked["question_id"]]
        assert len(row["answers"]) == 10
        assert row["images"] == [photo]
        assert (row["benchmark"], row["split"]) == ("vqav2", "train")
    rows = read(source, RowKind.SFT)
    assert texts(rows[0], "prompt") == ["What is this photo taken looking through?"]
    for row, asked in zip(rows, published, strict=True):
        (answer,) = texts(row, "completion")
        votes = Counter(given[asked["question_id"]])
        assert votes[answer] == max(votes.values())
        assert json.loads(row["meta"])["answers"] == given[asked["question_id"]]
    assert sources.size(source, RowKind.SFT, 0) == 3


def test_the_published_answer_is_learnt_where_there_is_one(download: Path) -> None:
    """The sample leaves `multiple_choice_answer` out; the full annotations have it."""
    content = json.loads((download / ANNOTATIONS).read_text())
    content["annotations"][0] |= {"multiple_choice_answer": "mesh", "question_type": "what is"}
    write_json(download / ANNOTATIONS, content)
    row = next(sources.rows(Source(kind="vqav2", path=str(download)), RowKind.SFT, 0))
    assert texts(row, "completion") == ["mesh"]
    assert json.loads(row["meta"])["question_type"] == "what is"


def test_missing_photos_and_annotations_are_quarantined(download: Path, tmp_path: Path) -> None:
    content = json.loads((download / QUESTIONS).read_text())
    content["questions"][1]["image_id"] = 1
    content["questions"][2]["question_id"] = 2
    content["questions"].append("no question")
    write_json(download / QUESTIONS, content)
    source = Source(kind="vqav2", path=str(download))
    data = DataPrep(max_quarantined=1.0)
    manifest = prepare([source], RowKind.SFT, tmp_path / "out", data=data, seed=0)
    assert manifest.rows == 1
    assert manifest.quarantined == {
        "no image data": 1,
        "empty completion": 1,
        "damaged record": 1,
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
