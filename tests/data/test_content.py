"""Prepared data is known by its rows: not by its place, its shards or its page."""

import json
import shutil
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from siqvl.data.content import content_of
from siqvl.data.manifest import FILE_NAME
from siqvl.data.preparation.prepare import prepare, prepare_pieces
from siqvl.data.schema import RowKind
from siqvl.errors import UserError
from siqvl.evaluation.benchmarks.prepare_benchmarks import BASELINES, prepare_benchmarks
from siqvl.recipe import DataPrep, Source


def shapes(count: int, skip: int = 0) -> Source:
    return Source(kind="shapes", subsets=["vqa"], max_samples=count, skip=skip)


def prepared(out: Path, *sources: Source, rows_per_shard: int = 50, seed: int = 0) -> Path:
    data = DataPrep(rows_per_shard=rows_per_shard)
    prepare(list(sources or [shapes(30)]), RowKind.SFT, out, data=data, seed=seed)
    return out


def test_equal_rows_elsewhere_and_cut_otherwise_are_equal(tmp_path: Path) -> None:
    one = prepared(tmp_path / "one")
    other = prepared(tmp_path / "deep" / "down" / "other", rows_per_shard=7)
    assert len(list(one.rglob("part-*.parquet"))) < len(list(other.rglob("part-*.parquet")))
    assert content_of(one) == content_of(other)
    moved = shutil.move(one, tmp_path / "moved")
    assert content_of(Path(moved)) == content_of(other)


def test_other_rows_are_another(tmp_path: Path) -> None:
    found = [
        content_of(prepared(tmp_path / "a")),
        content_of(prepared(tmp_path / "b", shapes(29))),
        content_of(prepared(tmp_path / "c", shapes(30, skip=1))),
    ]
    assert len(set(found)) == 3


def test_of_which_source_a_row_is_counts_for_training_mixes_by_it(tmp_path: Path) -> None:
    early = prepared(tmp_path / "a", shapes(10), shapes(20, skip=10))
    late = prepared(tmp_path / "b", shapes(20), shapes(10, skip=20))
    rows = [
        [row for part in sorted(folder.rglob("part-*")) for row in pq.read_table(part).to_pylist()]
        for folder in (early, late)
    ]
    assert rows[0] == rows[1]
    assert content_of(early) != content_of(late)


def test_what_only_people_read_does_not_count_and_all_else_beside_does(tmp_path: Path) -> None:
    folder = prepared(tmp_path / "data")
    before = content_of(folder)
    (folder / "report.html").write_text("another page")
    (folder / "quarantine.jsonl").write_text("{}\n")
    (folder / "notes.html").write_text("a page more")
    assert content_of(folder) == before
    (folder / "sampling.json").write_text(json.dumps({"settings": {"weight": 1.0}}))
    after = content_of(folder)
    assert after != before
    # what a sampled pair weighs in training is told nowhere else
    (folder / "sampling.json").write_text(json.dumps({"settings": {"weight": 2.0}}))
    assert content_of(folder) != after


@pytest.fixture
def benchmarks(tmp_path: Path, small_recipe) -> Path:
    recipe = small_recipe(tmp_path)
    content = recipe.model_dump(mode="json")
    (first,) = content["evaluation"]["benchmarks"]
    content["evaluation"]["benchmarks"] = [first, first | {"name": "again", "training": None}]
    prepare_benchmarks(type(recipe).model_validate(content), tmp_path / "benchmarks")
    return tmp_path / "benchmarks"


def test_benchmarks_are_known_by_each_of_theirs(benchmarks: Path, tmp_path: Path) -> None:
    whole = content_of(benchmarks)
    assert content_of(Path(shutil.copytree(benchmarks, tmp_path / "copy"))) == whole
    renamed = Path(shutil.copytree(benchmarks, tmp_path / "renamed"))
    (renamed / "again").rename(renamed / "anew")
    fewer = Path(shutil.copytree(benchmarks, tmp_path / "fewer"))
    shutil.rmtree(fewer / "again")
    assert len({whole, content_of(renamed), content_of(fewer), content_of(benchmarks / "vqa")}) == 4


def test_baselines_count(benchmarks: Path) -> None:
    before = content_of(benchmarks)
    baselines = benchmarks / "vqa" / BASELINES
    table = pq.read_table(baselines)
    scores = [1 - score for score in table["score"].to_pylist()]
    place = table.column_names.index("score")
    pq.write_table(table.set_column(place, "score", pa.array(scores)), baselines)
    assert content_of(benchmarks) != before


def test_pieces_have_no_manifest_and_count_by_their_bytes(tmp_path: Path) -> None:
    data = DataPrep()
    found = []
    for name, shard in (("a", 0), ("b", 0), ("c", 1)):
        folder = tmp_path / name / "pieces"
        prepare_pieces(
            [shapes(1100)], RowKind.SFT, folder, data=data, seed=0, shard=shard, shards=2
        )
        assert not list(folder.rglob(FILE_NAME))
        found.append(content_of(folder))
    assert found[0] == found[1] != found[2]
    (piece, *_) = sorted((tmp_path / "a" / "pieces").rglob("piece-*"))
    piece.write_bytes(piece.read_bytes() + b"x")
    assert content_of(tmp_path / "a" / "pieces") != found[0]


def test_a_damaged_manifest_is_named(tmp_path: Path) -> None:
    folder = prepared(tmp_path / "data")
    (folder / FILE_NAME).write_text("{")
    with pytest.raises(UserError, match=r"manifest\.json is damaged"):
        content_of(folder)
