"""FineVision: the columns of its card, turns dropped by their ratings, text-only rows."""

import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from siqvl.data import sources
from siqvl.data.encode import encode_sft
from siqvl.data.preparation.prepare import prepare
from siqvl.data.schema import Row, RowKind
from siqvl.errors import UserError
from siqvl.recipe import DataPrep, Source
from tests.data.made_pictures import picture

RED = picture("red")
IMAGE = {"bytes": RED, "path": None}
RATINGS = ("relevance", "formatting", "visual_dependency", "image_correspondence")
#: Columns and types of HuggingFaceM4/FineVision.
SCHEMA = pa.schema(
    [
        ("images", pa.list_(pa.struct([("bytes", pa.binary()), ("path", pa.string())]))),
        ("texts", pa.list_(pa.struct([("user", pa.string()), ("assistant", pa.string())]))),
        ("source", pa.string()),
        *((f"{name}_ratings", pa.list_(pa.int64())) for name in RATINGS),
        *((f"{name}_min", pa.int64()) for name in RATINGS),
    ]
)


def write(path: Path, rows: list[dict[str, Any]]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.Table.from_pylist(rows, SCHEMA), path)


def record(number: int = 0, turns: int = 1, **columns: Any) -> dict[str, Any]:
    texts = [{"user": f"question {number}.{t}", "assistant": f"answer {t}"} for t in range(turns)]
    ratings = {f"{name}_ratings": [5] * turns for name in RATINGS}
    lowest = {f"{name}_min": 5 for name in RATINGS}
    return {"images": [IMAGE], "texts": texts, "source": "pub", **ratings, **lowest} | columns


@pytest.fixture
def finevision(tmp_path: Path) -> Source:
    write(tmp_path / "ai2d" / "train-00000-of-00001.parquet", [record(n, 2) for n in range(3)])
    write(tmp_path / "text" / "train-00000-of-00002.parquet", [record(9, images=None)])
    write(tmp_path / "text" / "train-00001-of-00002.parquet", [record(10, images=[IMAGE, IMAGE])])
    return Source(kind="finevision", path=str(tmp_path))


def read(tmp_path: Path, row: dict[str, Any], **minimum: int) -> Row:
    """The canonical row of one published row under minimum ratings."""
    write(tmp_path / "one" / "train-00000-of-00001.parquet", [row])
    source = Source(kind="finevision", path=str(tmp_path), min_ratings=minimum)
    sources.check(source, RowKind.SFT)
    (found,) = sources.rows(source, RowKind.SFT, 0)
    return found


def contents(row: Row, column: str) -> list[str]:
    return [turn["content"] for turn in row[column]]


def test_subsets_take_turns_and_rows_have_none_one_or_more_pictures(finevision: Source) -> None:
    sources.check(finevision, RowKind.SFT)
    rows = list(sources.rows(finevision, RowKind.SFT, 0))
    assert [row["source"].split("/")[1] for row in rows] == ["ai2d", "text", "ai2d", "text", "ai2d"]
    assert [row["images"] for row in rows] == [[RED], [], [RED], [RED, RED], [RED]]
    meta = json.loads(rows[0]["meta"])
    assert meta["relevance_ratings"] == [5, 5]
    assert meta["formatting_min"] == 5
    assert meta["published_source"] == "pub"
    only = finevision.model_copy(update={"subsets": ["text"], "max_samples": 1})
    assert [row["id"] for row in sources.rows(only, RowKind.SFT, 0)] == [
        "finevision/text/train/0000000"
    ]
    assert sources.size(finevision, RowKind.SFT, 0) == 5


def test_the_last_turn_is_learnt(finevision: Source, processor: Any) -> None:
    row = next(sources.rows(finevision, RowKind.SFT, 0))
    assert contents(row, "prompt") == ["question 0.0", "answer 0", "question 0.1"]
    encoded = encode_sft(row, processor)
    learned = processor.tokenizer.decode([label for label in encoded.labels if label != -100])
    assert learned == "answer 1<|im_end|>"


@pytest.mark.parametrize("name", RATINGS)
def test_turns_rated_below_a_minimum_are_dropped(name: str, tmp_path: Path) -> None:
    published = record(0, 3, **{f"{name}_ratings": [4, 5, 3], f"{name}_min": 3})
    row = read(tmp_path, published, **{name: 4})
    assert contents(row, "prompt") == ["question 0.0", "answer 0", "question 0.1"]
    assert contents(row, "completion") == ["answer 1"]
    meta = json.loads(row["meta"])
    assert (meta["turns_left_out"], meta[f"{name}_ratings"]) == (1, [4, 5])


def test_a_row_whose_turns_are_all_below_is_left_out(tmp_path: Path) -> None:
    published = record(0, 2, relevance_ratings=[1, 5], formatting_ratings=[5, 2])
    row = read(tmp_path, published, relevance=3, formatting=3)
    assert row == {
        "id": "finevision/one/train/0000000",
        "source": "finevision/one",
        "left_out": "rated below min_ratings",
    }


@pytest.mark.parametrize("lists", [None, [], [5]])
def test_without_a_rating_for_every_turn_the_lowest_counts(lists: Any, tmp_path: Path) -> None:
    low = record(0, 2, relevance_ratings=lists, relevance_min=2)
    assert "left_out" in read(tmp_path, low, relevance=3)
    high = record(0, 2, relevance_ratings=lists, relevance_min=3)
    assert len(read(tmp_path, high, relevance=3)["prompt"]) == 3


def test_what_is_not_rated_stays(tmp_path: Path) -> None:
    turn = record(0, 3, relevance_ratings=[None, 2, 0], relevance_min=2)
    assert contents(read(tmp_path, turn, relevance=5), "completion") == ["answer 2"]
    assert len(read(tmp_path, turn, relevance=5)["prompt"]) == 3  # the first turn and a question
    nothing = record(0, 2, relevance_ratings=None, relevance_min=None)
    assert len(read(tmp_path, nothing, relevance=5)["prompt"]) == 3


def test_an_empty_conversation_is_bad_not_left_out(tmp_path: Path) -> None:
    good = [record(n) for n in range(60)]
    write(tmp_path / "in" / "a" / "train-0.parquet", [*good, record(texts=[])])
    source = Source(kind="finevision", path=str(tmp_path / "in"), min_ratings={"relevance": 2})
    manifest = prepare([source], RowKind.SFT, tmp_path / "out", data=DataPrep(), seed=0)
    assert manifest.quarantined == {"damaged record": 1}
    assert "texts has no turns" in (tmp_path / "out" / "quarantine.jsonl").read_text()


def test_complaints(finevision: Source, tmp_path: Path) -> None:
    for changes, message in (
        ({"subsets": ["docvqa"]}, "unknown subset `docvqa`; it has ai2d, text"),
        ({"split": "test"}, "unknown split `test`; it has train"),
    ):
        with pytest.raises(UserError) as error:
            sources.check(finevision.model_copy(update=changes), RowKind.SFT)
        assert error.value.message == f"source `finevision`: {message}"
    other = tmp_path / "other"
    other.mkdir()
    pq.write_table(pa.Table.from_pylist([{"image": IMAGE, "texts": []}]), other / "x.parquet")
    with pytest.raises(UserError, match="has no column `images`; it has image, texts"):
        sources.check(Source(kind="finevision", path=str(other)), RowKind.SFT)


def test_ratings_of_other_kinds_are_refused(tmp_path: Path) -> None:
    source = Source(kind="table", path=str(tmp_path), min_ratings={"relevance": 3})
    with pytest.raises(UserError) as error:
        sources.check(source, RowKind.SFT)
    assert error.value.message == (
        "source `table`: only `finevision` has ratings; leave out `min_ratings`"
    )
