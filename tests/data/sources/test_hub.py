"""Hub data sets: `datasets` streams a local folder laid out like a repository of the hub.

What cannot be tested without the hub: its network, and gated sets.
"""

from __future__ import annotations

import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import datasets
import pyarrow as pa
import pytest

from siqvl.data import sources
from siqvl.data.preparation.prepare import prepare
from siqvl.data.schema import RowKind
from siqvl.data.sources.official import gqa
from siqvl.data.sources.reading import published, tabular
from siqvl.errors import UserError
from siqvl.recipe import DataPrep, MinRatings, Source
from tests.data.made_pictures import picture
from tests.data.sources.published_files import IMAGE_TYPE, texts, write_parquet

CARD = """---
configs:
- config_name: {first}
  data_files:
  - split: train
    path: {first}/train-*
- config_name: {second}
  data_files:
  - split: train
    path: {second}/train-*
---
"""
TURNS = pa.list_(pa.struct([("user", pa.string()), ("assistant", pa.string())]))


def row(number: int, **columns: Any) -> dict[str, Any]:
    image = {"bytes": picture(f"#0000{number:02d}"), "path": None}
    return {"image": image, "question": f"What, {number}?", "answer": "red"} | columns


@pytest.fixture
def as_hub(monkeypatch: pytest.MonkeyPatch) -> None:
    """Local folders are read as hub ids are: `datasets` takes either for a repository."""
    for module in (tabular, published, gqa):
        monkeypatch.setattr(module, "is_local", lambda source: False)
    monkeypatch.setattr("siqvl.data.sources.tables.table.is_local", lambda source: False)
    monkeypatch.setattr(published.TableAdapter, "_download", lambda self, source: None)


@pytest.fixture
def repository(tmp_path: Path, as_hub: None) -> Source:
    folder = tmp_path / "repository"
    types = {"image": IMAGE_TYPE, "question": pa.string(), "answer": pa.string()}
    for number in range(3):
        file = folder / "a" / f"train-0000{number}-of-00003.parquet"
        write_parquet(file, [row(3 * number + n) for n in range(3)], **types)
    write_parquet(folder / "b" / "train-00000-of-00001.parquet", [row(50), row(51)], **types)
    (folder / "README.md").write_text(CARD.format(first="a", second="b"))
    return Source(kind="table", path=str(folder))


def test_subsets_are_streamed_in_turn(repository: Source) -> None:
    sources.check(repository, RowKind.SFT)
    rows = list(sources.rows(repository, RowKind.SFT, 0))
    numbers = [int(texts(row, "prompt")[0][6:-1]) for row in rows]
    assert numbers == [0, 50, 1, 51, 2, 3, 4, 5, 6, 7, 8]
    assert rows[1]["id"] == "repository/b/train/0000000"
    assert rows[4]["images"] == [picture("#000002")]  # encoded, not decoded
    assert sources.size(repository, RowKind.SFT, 0) is None


def test_pieces_of_a_stream(repository: Source) -> None:
    whole = list(sources.rows(repository, RowKind.SFT, 0))
    assert list(sources.rows(repository, RowKind.SFT, 0, start=4, stop=9)) == whole[4:9]
    few = repository.model_copy(update={"max_samples": 6})
    assert list(sources.rows(few, RowKind.SFT, 0, start=4)) == whole[4:6]


def test_rows_passed_over_are_not_made_python_objects(
    repository: Source, monkeypatch: pytest.MonkeyPatch
) -> None:
    made: list[int] = []
    original = tabular.table_row

    def table_row(table: pa.Table, index: int) -> dict[str, Any]:
        made.append(index)
        return original(table, index)

    only = repository.model_copy(update={"subsets": ["a"]})
    monkeypatch.setattr(tabular, "table_row", table_row)
    unread = sources.unread(only, RowKind.SFT, 0, start=7)
    made.clear()  # of the first row, whose columns are looked at
    assert len([read() for read in unread]) == 2
    assert len(made) == 4  # two of them to look at the columns


def test_unknown_subsets_and_splits(repository: Source) -> None:
    with pytest.raises(UserError, match="unknown subset `c`; it has a, b"):
        sources.check(repository.model_copy(update={"subsets": ["c"]}), RowKind.SFT)
    with pytest.raises(UserError, match="unknown split `dev`; it has train"):
        sources.check(repository.model_copy(update={"split": "dev"}), RowKind.SFT)


def test_a_stream_is_prepared(repository: Source, tmp_path: Path) -> None:
    manifest = prepare([repository], RowKind.SFT, tmp_path / "out", data=DataPrep(), seed=0)
    assert (manifest.rows, manifest.quarantined) == (11, {})


def test_finevision_is_streamed(tmp_path: Path, as_hub: None) -> None:
    folder = tmp_path / "FineVision"
    turn = [{"user": "What?", "assistant": "A cat."}]
    record = {"images": [row(1)["image"]], "texts": turn, "source": "pub", "relevance_min": 2}
    types = {"images": pa.list_(IMAGE_TYPE), "texts": TURNS, "source": pa.string()}
    for subset in ("ai2d_merged", "sharegpt4v(coco)"):
        file = folder / subset / "train-00000-of-00001.parquet"
        write_parquet(file, [record, record], **types, relevance_min=pa.int64())
    (folder / "README.md").write_text(CARD.format(first="ai2d_merged", second="sharegpt4v(coco)"))
    source = Source(kind="finevision", path=str(folder), subsets=["sharegpt4v(coco)"])
    sources.check(source, RowKind.SFT)
    rows = list(sources.rows(source, RowKind.SFT, 0))
    assert [row["id"] for row in rows] == [
        f"finevision/sharegpt4v(coco)/train/000000{n}" for n in range(2)
    ]
    assert rows[0]["images"] == [picture("#000001")]
    strict = source.model_copy(update={"min_ratings": MinRatings(relevance=3)})
    assert all("left_out" in row for row in sources.rows(strict, RowKind.SFT, 0))


def test_a_question_of_gqa_meets_its_picture(tmp_path: Path, as_hub: None) -> None:
    """Questions and pictures come from two configs, as in lmms-lab/GQA."""
    folder = tmp_path / "GQA"
    asked = [
        {"id": f"{n}", "imageId": image, "question": f"Is it {n}?", "answer": "no"}
        for n, image in enumerate(["n2", "n1", "n3", "n2"])
    ]
    pictures = [{"id": f"n{n}", "image": row(n)["image"]} for n in range(3)]
    parts = ("train_balanced_instructions", "train_balanced_images")
    for part, records in zip(parts, (asked, pictures), strict=True):
        write_parquet(folder / part / "train-00000-of-00001.parquet", records)
    (folder / "README.md").write_text(CARD.format(first=parts[0], second=parts[1]))
    source = Source(kind="gqa", path=str(folder), subsets=["train_balanced"])
    sources.check(source, RowKind.SFT)
    rows = list(sources.rows(source, RowKind.SFT, 0))
    assert [(row["id"].rpartition("/")[2], row["images"]) for row in rows] == [
        ("1", [picture("#000001")]),
        ("0", [picture("#000002")]),
        ("3", [picture("#000002")]),
        ("2", ["n3.jpg"]),  # no picture: preparation quarantines it
    ]


def test_a_damaged_file_is_one_sentence(repository: Source) -> None:
    file = Path(str(repository.path)) / "a" / "train-00002-of-00003.parquet"
    file.write_bytes(file.read_bytes()[:-200])
    only = repository.model_copy(update={"subsets": ["a"]})
    with pytest.raises(UserError) as error:
        list(sources.rows(only, RowKind.SFT, 0))
    message = error.value.message
    assert message.startswith(f"source `table`: hub data set {repository.path} broke off after ")
    assert message.endswith("; run it again, or give a local folder")
    assert "\n" not in message


class Flaky:
    """A connection that breaks some reads of a file."""

    def __init__(self, file: Any, breaks: list[int]) -> None:
        self._file, self._breaks = file, breaks

    def __getattr__(self, name: str) -> Any:
        return getattr(self._file, name)

    def __enter__(self) -> Flaky:
        return self

    def __exit__(self, *error: object) -> None:
        self._file.close()

    def read(self, *args: Any) -> bytes:
        if self._breaks[0] > 0:
            self._breaks[0] -= 1
            raise TimeoutError("read timed out")
        return self._file.read(*args)


@pytest.mark.parametrize("breaks", [2, 10_000])
def test_a_bad_read_is_repeated_until_patience_ends(
    breaks: int, repository: Source, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`datasets` reads remote files through this wrapper, put here around a local one."""
    from datasets.packaged_modules.parquet import parquet
    from datasets.utils import file_utils

    left = [breaks]

    def remote(path: Any, mode: str = "rb", **options: Any) -> Any:
        return file_utils._add_retries_to_file_obj_read_method(Flaky(open(path, mode), left))

    monkeypatch.setattr(datasets.config, "STREAMING_READ_MAX_RETRIES", 3)
    monkeypatch.setattr(datasets.config, "STREAMING_READ_RETRY_INTERVAL", 0)
    monkeypatch.setattr(parquet, "open", remote, raising=False)
    monkeypatch.setattr(file_utils, "xopen", remote)
    only = repository.model_copy(update={"subsets": ["b"]})
    if breaks == 2:
        assert len(list(sources.rows(only, RowKind.SFT, 0))) == 2
        assert left == [0]  # both breaks have happened
        return
    with pytest.raises(UserError, match=r"broke off after 0 rows \(ConnectionError: Server Disc"):
        list(sources.rows(only, RowKind.SFT, 0))


def test_an_unreachable_hub_is_one_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*args: Any, **options: Any) -> None:
        raise ConnectionError("no\nnetwork")

    monkeypatch.setattr(datasets, "get_dataset_config_names", refuse)
    with pytest.raises(UserError) as error:
        sources.check(Source(kind="finevision", path="HuggingFaceM4/FineVision"), RowKind.SFT)
    assert error.value.message == (
        "source `finevision`: hub data set HuggingFaceM4/FineVision cannot be reached "
        "(ConnectionError: no network); correct `path`, log in with `hf auth login`, "
        "or give a local folder"
    )


@pytest.fixture
def commits(repository: Source, monkeypatch: pytest.MonkeyPatch) -> list[str | None]:
    """What the hub says, request by request: a commit, or None where it is away."""
    import huggingface_hub

    answers: list[str | None] = []

    def dataset_info(self: Any, path: str, revision: str | None, timeout: float) -> Any:
        assert (path, revision) == (repository.path, None)
        if (commit := answers.pop(0)) is None:
            raise TimeoutError("the hub is away")
        return SimpleNamespace(sha=commit)

    monkeypatch.setattr(huggingface_hub.HfApi, "dataset_info", dataset_info)
    monkeypatch.setattr(sys.modules["siqvl.data.sources.state"], "_is_local", lambda path: False)
    return answers


@pytest.fixture
def revisions(monkeypatch: pytest.MonkeyPatch) -> list[str | None]:
    """The revisions that rows are read at."""
    read, asked = datasets.load_dataset, []

    def load_dataset(*args: Any, revision: str | None, **options: Any) -> Any:
        asked.append(revision)
        return read(*args, **options)

    monkeypatch.setattr(datasets, "load_dataset", load_dataset)
    return asked


def test_a_hub_that_is_away_at_the_start_costs_nothing(
    repository: Source, tmp_path: Path, commits, revisions, caplog: pytest.LogCaptureFixture
) -> None:
    commits += [None, "a" * 40, "b" * 40]
    manifest = prepare([repository], RowKind.SFT, tmp_path / "out", data=DataPrep(), seed=0)
    assert manifest.rows == 11
    assert set(revisions) == {None}
    assert "the hub does not say at which commit" in caplog.text


def test_rows_are_read_at_the_commit_of_the_start(
    repository: Source, tmp_path: Path, commits, revisions
) -> None:
    commits += ["a" * 40, "b" * 40]
    manifest = prepare([repository], RowKind.SFT, tmp_path / "out", data=DataPrep(), seed=0)
    assert set(revisions) == {"a" * 40}
    assert manifest.sources == [repository]
    assert commits == ["b" * 40]
