"""Published questions of GQA and VQAv2, with their photos."""

import json
import os
import shutil
from collections import Counter
from pathlib import Path

import pytest

from siqvl.data import sources
from siqvl.data.preparation.prepare import prepare
from siqvl.data.schema import RowKind
from siqvl.errors import UserError
from siqvl.recipe import DataPrep, Source
from tests.data.sources.published_files import read, texts, write_json

if "SIQVL_REAL_DATA" not in os.environ:
    reason = "SIQVL_REAL_DATA is not set: published data is not in the repository"
    pytest.skip(reason, allow_module_level=True)

QUESTIONS = "v2_OpenEnded_mscoco_train2014_questions.json"
ANNOTATIONS = "v2_mscoco_train2014_annotations.json"


@pytest.fixture
def gqa(real_data: Path, tmp_path: Path) -> Path:
    """GQA's questions and photos, laid out as the official gqa."""
    fixtures = real_data / "allennlp_vision_fixtures"
    shutil.copy(fixtures / "gqa" / "questions.json", tmp_path / "val_balanced_questions.json")
    folder = tmp_path / "train_all_questions"
    shutil.copytree(fixtures / "gqa" / "question_dir", folder)
    shutil.copytree(fixtures / "images" / "gqa", tmp_path / "images")
    return tmp_path


def test_a_published_question_and_its_photo(gqa: Path) -> None:
    source = Source(kind="gqa", path=str(gqa), subsets=["val_balanced"], split="val")
    sources.check(source, RowKind.EVALUATION)
    (row,) = sources.rows(source, RowKind.EVALUATION, seed=0)
    assert row["question"] == "What is hanging above the chalkboard?"
    assert row["answers"] == ["picture"]
    assert row["images"] == [(gqa / "images" / "n578564.jpg").read_bytes()]
    (row,) = sources.rows(source, RowKind.SFT, seed=0)
    assert row["completion"] == [{"role": "assistant", "content": "picture"}]
    assert json.loads(row["meta"])["full_answer"] == "The picture is hanging above the chalkboard."


def test_a_folder_of_question_files(gqa: Path) -> None:
    source = Source(kind="gqa", path=str(gqa), subsets=["train_all"])
    published = {}
    for file in (gqa / "train_all_questions").iterdir():
        published |= json.loads(file.read_text())
    rows = list(sources.rows(source, RowKind.EVALUATION, seed=0))
    assert {row["id"] for row in rows} == {f"gqa/train_all/{key}" for key in published}
    for row in rows:
        record = published[row["id"].rpartition("/")[2]]
        assert (row["question"], row["answers"]) == (record["question"], [record["answer"]])


def test_bad_questions_are_quarantined_one_by_one(
    gqa: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    file = gqa / "val_balanced_questions.json"
    content = json.loads(file.read_text())
    (good,) = content.values()
    content |= {"1": "text", "2": good | {"imageId": "n0"}, "3": good | {"question": None}}
    file.write_text(json.dumps(content))
    source = Source(kind="gqa", path=str(gqa), subsets=["val_balanced"], split="val")
    out = tmp_path_factory.mktemp("out") / "data"
    data = DataPrep(max_quarantined=1.0)
    manifest = prepare([source], RowKind.SFT, out, data=data, seed=0)
    assert manifest.rows == 1
    assert sum(manifest.quarantined.values()) == 3
    file.write_text("[]")
    with pytest.raises(UserError, match=r"val_balanced_questions\.json holds no questions by id"):
        list(sources.rows(source, RowKind.SFT, 0))


@pytest.fixture
def vqav2(real_data: Path, tmp_path: Path) -> Path:
    """VQAv2's questions, annotations and photos under their official names."""
    fixtures = real_data / "allennlp_vision_fixtures"
    folder = tmp_path / "vqav2"
    folder.mkdir()
    shutil.copy(fixtures / "vqav2" / "questions.json", folder / QUESTIONS)
    shutil.copy(fixtures / "vqav2" / "annotations.json", folder / ANNOTATIONS)
    shutil.copytree(fixtures / "images" / "vqav2", folder / "train2014")
    return folder


def test_published_questions_with_their_ten_answers(vqav2: Path) -> None:
    source = Source(kind="vqav2", path=str(vqav2))
    published = json.loads((vqav2 / QUESTIONS).read_text())["questions"]
    given = {
        one["question_id"]: [answer["answer"] for answer in one["answers"]]
        for one in json.loads((vqav2 / ANNOTATIONS).read_text())["annotations"]
    }
    rows = read(source, RowKind.EVALUATION)
    assert [row["id"] for row in rows] == [f"vqav2/train/{458752000 + n}" for n in range(3)]
    photo = (vqav2 / "train2014" / "COCO_train2014_000000458752.jpg").read_bytes()
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


def test_the_published_answer_is_learnt_where_there_is_one(vqav2: Path) -> None:
    """The sample leaves `multiple_choice_answer` out; the full annotations have it."""
    content = json.loads((vqav2 / ANNOTATIONS).read_text())
    content["annotations"][0] |= {"multiple_choice_answer": "mesh", "question_type": "what is"}
    write_json(vqav2 / ANNOTATIONS, content)
    row = next(sources.rows(Source(kind="vqav2", path=str(vqav2)), RowKind.SFT, 0))
    assert texts(row, "completion") == ["mesh"]
    assert json.loads(row["meta"])["question_type"] == "what is"


def test_missing_photos_and_annotations_are_quarantined(vqav2: Path, tmp_path: Path) -> None:
    content = json.loads((vqav2 / QUESTIONS).read_text())
    content["questions"][1]["image_id"] = 1
    content["questions"][2]["question_id"] = 2
    content["questions"].append("no question")
    write_json(vqav2 / QUESTIONS, content)
    source = Source(kind="vqav2", path=str(vqav2))
    data = DataPrep(max_quarantined=1.0)
    manifest = prepare([source], RowKind.SFT, tmp_path / "out", data=data, seed=0)
    assert manifest.rows == 1
    assert manifest.quarantined == {
        "no image data": 1,
        "empty completion": 1,
        "damaged record": 1,
    }
