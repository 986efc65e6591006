"""TextVQA: the official json and the hub's columns."""

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

#: The first validation question, as published.
QUESTION: dict[str, Any] = {
    "question": "what is the brand of this camera?",
    "image_id": "003a8ae2ef43b901",
    "image_classes": ["Cassette deck", "Printer", "Medical equipment", "Computer mouse"],
    "flickr_original_url": "https://farm2.staticflickr.com/4/5566811_bc00d504a6_o.jpg",
    "flickr_300k_url": "https://farm2.staticflickr.com/4/5566811_bc00d504a6_o.jpg",
    "image_width": 1024,
    "image_height": 664,
    "answers": [
        *("nous les gosses", "dakota", "clos culombu", "dakota digital", "dakota"),
        *("dakota", "dakota digital", "dakota digital", "dakota", "dakota"),
    ],
    "question_tokens": ["what", "is", "the", "brand", "of", "this", "camera"],
    "question_id": 34602,
    "set_name": "val",
}


@pytest.fixture
def download(tmp_path: Path) -> Source:
    content = {"dataset_type": "val", "dataset_name": "textvqa", "data": [QUESTION]}
    write_json(tmp_path / "TextVQA_0.5.1_val.json", content)
    (tmp_path / "train_images").mkdir()
    (tmp_path / "train_images" / "003a8ae2ef43b901.jpg").write_bytes(picture(format="JPEG"))
    return Source(kind="textvqa", path=str(tmp_path), split="validation")


@pytest.fixture
def hub(tmp_path: Path) -> Source:
    """Columns and types of lmms-lab/textvqa."""
    names = pa.list_(pa.string())
    row = QUESTION | {"image": {"bytes": picture(format="JPEG"), "path": None}}
    types = {
        "image_id": pa.string(),
        "question_id": pa.int32(),
        "question": pa.string(),
        "question_tokens": names,
        "image": IMAGE_TYPE,
        "image_width": pa.int32(),
        "image_height": pa.int32(),
        "flickr_original_url": pa.string(),
        "flickr_300k_url": pa.string(),
        "answers": names,
        "image_classes": names,
        "set_name": pa.string(),
    }
    write_parquet(tmp_path / "data" / "validation-00000-of-00003.parquet", [row], **types)
    return Source(kind="textvqa", path=str(tmp_path), split="validation")


@pytest.mark.parametrize("layout", ["download", "hub"])
def test_both_layouts_give_the_same_row(layout: str, request: pytest.FixtureRequest) -> None:
    source = request.getfixturevalue(layout)
    (row,) = read(source, RowKind.EVALUATION)
    assert row["id"] == "textvqa/validation/34602"
    assert row["question"] == "what is the brand of this camera?"
    assert row["answers"] == QUESTION["answers"]
    assert row["images"] == [picture(format="JPEG")]
    (row,) = read(source, RowKind.SFT)
    assert texts(row, "completion") == ["dakota"]  # five of ten
    assert json.loads(row["meta"])["image_id"] == "003a8ae2ef43b901"


def test_complaints(download: Source) -> None:
    with pytest.raises(UserError, match="the answers of split `test` are not published"):
        sources.check(download.model_copy(update={"split": "test"}), RowKind.SFT)
    file = Path(str(download.path)) / "TextVQA_0.5.1_val.json"
    write_json(file, [QUESTION])
    with pytest.raises(UserError, match=r"TextVQA_0\.5\.1_val\.json has no list `data`"):
        read(download, RowKind.SFT)
