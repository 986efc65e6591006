"""RLHF-V and RLAIF-V: the columns of their cards."""

import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from siqvl.data import sources
from siqvl.data.encode import encode_preference
from siqvl.data.schema import RowKind
from siqvl.errors import UserError
from siqvl.recipe import Source
from tests.data.made_pictures import picture
from tests.data.sources.published_files import IMAGE_TYPE, read, texts, write_parquet

TEXT = pa.string()
PAIR = {"question": "What is there?", "chosen": "A cat.", "rejected": "A dog and a cat."}
SHARED = {
    "ds_name": "RLHF-V",
    "image": {"bytes": picture(), "path": "llava/1.jpg"},
    "origin_dataset": "LCS-558K",
    "origin_split": '{"model": "Muffin", "type": "detailed_description"}',
    "image_path": "RLHF-V/1.jpg",
}
RLHF_V = {
    "ds_name": TEXT,
    "image": IMAGE_TYPE,
    "text": TEXT,
    "origin_dataset": TEXT,
    "origin_split": TEXT,
    "idx": pa.int64(),
    "image_path": TEXT,
}
RLAIF_V = {
    "ds_name": TEXT,
    "image": IMAGE_TYPE,
    **dict.fromkeys(PAIR, TEXT),
    "origin_dataset": TEXT,
    "origin_split": TEXT,
    "idx": TEXT,
    "image_path": TEXT,
}
LAYOUTS: dict[str, tuple[str, dict[str, Any], dict[str, Any]]] = {
    "rlhf_v": ("RLHF-V-Dataset.parquet", SHARED | {"text": json.dumps(PAIR), "idx": 7}, RLHF_V),
    "rlaif_v": ("RLAIF-V-Dataset_000.parquet", SHARED | PAIR | {"idx": "7"}, RLAIF_V),
}


@pytest.mark.parametrize("kind", LAYOUTS)
def test_a_published_pair(kind: str, tmp_path: Path, processor: Any) -> None:
    name, row, types = LAYOUTS[kind]
    write_parquet(tmp_path / name, [row], **types)
    (found,) = read(Source(kind=kind, path=str(tmp_path)), RowKind.PREFERENCE)
    sides = [texts(found, column) for column in ("prompt", "chosen", "rejected")]
    assert sides == [["What is there?"], ["A cat."], ["A dog and a cat."]]
    assert found["images"] == [picture()]
    assert found["id"] == f"{kind}/train/0000000"
    assert str(json.loads(found["meta"])["idx"]) == "7"
    for side, text in zip(encode_preference(found, processor), sides[1:], strict=True):
        learned = processor.tokenizer.decode([label for label in side.labels if label != -100])
        assert learned == text[0] + "<|im_end|>"


@pytest.mark.parametrize("text", ["{", "[]", "null", None, "[" * 100_000])
def test_a_pair_that_cannot_be_read_is_empty(text: Any, tmp_path: Path) -> None:
    name, row, types = LAYOUTS["rlhf_v"]
    write_parquet(tmp_path / name, [row | {"text": text}], **types)
    (found,) = read(Source(kind="rlhf_v", path=str(tmp_path)), RowKind.PREFERENCE)
    assert texts(found, "chosen") == texts(found, "prompt") == [""]


def test_only_pairs_come_from_them(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="source `rlaif_v` has no sft rows, only preference"):
        sources.check(Source(kind="rlaif_v", path=str(tmp_path)), RowKind.SFT)
    write_parquet(tmp_path / "x.parquet", [PAIR])
    with pytest.raises(UserError, match="has no column `image`; it has question, chosen, rejected"):
        sources.check(Source(kind="rlaif_v", path=str(tmp_path)), RowKind.PREFERENCE)
