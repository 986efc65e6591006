"""GQA: a published question with its photo, and the hub's layout in small."""

import json
import shutil
from pathlib import Path

import pytest

from siqvl.data import sources
from siqvl.data.preparation.prepare import prepare
from siqvl.data.schema import RowKind
from siqvl.data.sources.official.gqa import gqa_row, question
from siqvl.errors import UserError
from siqvl.recipe import DataPrep, Source
from tests.data.sources.published_files import write_parquet


@pytest.fixture
def download(real_data: Path, tmp_path: Path) -> Path:
    """Published questions and photos, laid out as the official download."""
    fixtures = real_data / "allennlp_vision_fixtures"
    shutil.copy(fixtures / "gqa" / "questions.json", tmp_path / "val_balanced_questions.json")
    folder = tmp_path / "train_all_questions"
    shutil.copytree(fixtures / "gqa" / "question_dir", folder)
    shutil.copytree(fixtures / "images" / "gqa", tmp_path / "images")
    return tmp_path


def test_a_published_question_and_its_photo(download: Path) -> None:
    source = Source(kind="gqa", path=str(download), subsets=["val_balanced"], split="val")
    sources.check(source, RowKind.EVALUATION)
    (row,) = sources.rows(source, RowKind.EVALUATION, seed=0)
    assert row["question"] == "What is hanging above the chalkboard?"
    assert row["answers"] == ["picture"]
    assert row["images"] == [(download / "images" / "n578564.jpg").read_bytes()]
    (row,) = sources.rows(source, RowKind.SFT, seed=0)
    assert row["completion"] == [{"role": "assistant", "content": "picture"}]
    assert json.loads(row["meta"])["full_answer"] == "The picture is hanging above the chalkboard."


def test_a_folder_of_question_files(download: Path) -> None:
    source = Source(kind="gqa", path=str(download), subsets=["train_all"])
    published = {}
    for file in (download / "train_all_questions").iterdir():
        published |= json.loads(file.read_text())
    rows = list(sources.rows(source, RowKind.EVALUATION, seed=0))
    assert {row["id"] for row in rows} == {f"gqa/train_all/{key}" for key in published}
    for row in rows:
        record = published[row["id"].rpartition("/")[2]]
        assert (row["question"], row["answers"]) == (record["question"], [record["answer"]])


def test_the_hubs_columns() -> None:
    """Columns of lmms-lab/GQA, config testdev_balanced_instructions, as on its dataset card."""
    record = {
        "id": "201307251",
        "imageId": "n161313",
        "question": "Is it overcast?",
        "answer": "no",
        "fullAnswer": "No, it is clear.",
        "isBalanced": True,
    }
    asked = question(record["id"], record)
    row = gqa_row(RowKind.EVALUATION, asked, b"picture", "testdev_balanced")
    assert row["id"] == "gqa/testdev_balanced/201307251"
    assert (row["question"], row["answers"], row["split"]) == ("Is it overcast?", ["no"], "testdev")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"subsets": []}, "source `gqa` needs `subsets`"),
        ({"subsets": ["train"]}, "unknown subset `train`"),
        ({"split": "testdev"}, "subset `val_balanced` is not of split `testdev`"),
        ({"subsets": ["val_all"]}, "no val_all_questions.json below"),
    ],
)
def test_wrong_sources_are_one_line(tmp_path: Path, changes: dict, message: str) -> None:
    (tmp_path / "val_balanced_questions.json").write_text("{}")
    fields = {"kind": "gqa", "path": str(tmp_path), "subsets": ["val_balanced"], "split": "val"}
    with pytest.raises(UserError) as caught:
        sources.check(Source(**(fields | changes)), RowKind.SFT)
    assert message in caught.value.message


def test_the_hubs_tables_on_disk(tmp_path: Path) -> None:
    """A folder as `hf download lmms-lab/GQA` leaves it."""
    folder = tmp_path / "GQA"
    for image in ("n1", "n2"):
        record = {"id": image, "image": {"bytes": image.encode(), "path": f"{image}.jpg"}}
        file = f"testdev-0000{image[1]}-of-00002.parquet"
        write_parquet(folder / "testdev_balanced_images" / file, [record])
    asked = [
        {"id": f"20{number}", "imageId": image, "question": "Is it?", "answer": "no"}
        for number, image in enumerate(["n2", "n1", "n2", "n9"])
    ]
    instructions = folder / "testdev_balanced_instructions"
    write_parquet(instructions / "testdev-00000-of-00001.parquet", asked)
    source = Source(kind="gqa", path=str(folder), subsets=["testdev_balanced"], split="testdev")
    sources.check(source, RowKind.EVALUATION)
    rows = list(sources.rows(source, RowKind.EVALUATION, seed=0))
    assert [(row["id"].rpartition("/")[2], row["images"]) for row in rows] == [
        ("201", [b"n1"]),
        ("200", [b"n2"]),
        ("202", [b"n2"]),
        ("203", ["n9.jpg"]),  # no picture: preparation quarantines it
    ]
    assert list(sources.rows(source, RowKind.EVALUATION, 0, start=2, stop=3)) == rows[2:3]


def test_bad_questions_are_quarantined_one_by_one(
    download: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    file = download / "val_balanced_questions.json"
    content = json.loads(file.read_text())
    (good,) = content.values()
    content |= {"1": "text", "2": good | {"imageId": "n0"}, "3": good | {"question": None}}
    file.write_text(json.dumps(content))
    source = Source(kind="gqa", path=str(download), subsets=["val_balanced"], split="val")
    out = tmp_path_factory.mktemp("out") / "data"
    data = DataPrep(max_quarantined=1.0)
    manifest = prepare([source], RowKind.SFT, out, data=data, seed=0)
    assert manifest.rows == 1
    assert sum(manifest.quarantined.values()) == 3
    file.write_text("[]")
    with pytest.raises(UserError, match=r"val_balanced_questions\.json holds no questions by id"):
        list(sources.rows(source, RowKind.SFT, 0))
