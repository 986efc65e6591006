"""Every recipe of the gallery in docs/data.md, on sets of the published layout."""

from pathlib import Path

import pytest

from siqvl.data import sources
from siqvl.data.preparation.prepare import prepare
from siqvl.data.schema import RowKind
from siqvl.errors import UserError
from siqvl.recipe import DataPrep, Source
from tests.data.sources.published_layouts import LAYOUTS, Said, gallery, put


def read(source: Source, kind: RowKind) -> list[Said]:
    sources.check(source, kind)
    rows = [row for row in sources.rows(source, kind, 0) if "left_out" not in row]
    if kind is RowKind.EVALUATION:
        return [(row["images"], row["question"], *row["answers"]) for row in rows]
    return [
        (row["images"], row["prompt"][-1]["content"], row["completion"][0]["content"])
        for row in rows
    ]


def test_the_gallery_has_every_layout() -> None:
    assert gallery().keys() == LAYOUTS.keys()


@pytest.mark.parametrize("kind", [RowKind.SFT, RowKind.EVALUATION])
@pytest.mark.parametrize("name", LAYOUTS)
def test_rows_are_what_was_published(
    name: str, kind: RowKind, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    right = LAYOUTS[name](tmp_path)
    monkeypatch.setenv("SETS", str(tmp_path))
    found = [read(source, kind) for source in gallery()[name]]
    assert found == list(right.values())


@pytest.mark.parametrize("name", LAYOUTS)
def test_all_of_them_are_prepared(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    right = LAYOUTS[name](tmp_path)
    monkeypatch.setenv("SETS", str(tmp_path))
    data = DataPrep(duplicates="none", leaks="none")
    manifest = prepare(gallery()[name], RowKind.SFT, tmp_path / "out", data=data, seed=0)
    assert manifest.rows_of_sources == [len(rows) for rows in right.values()]
    assert manifest.quarantined == {}
    if name == "SROIE":
        assert manifest.left_out == {"nothing in column `date`": 1, "nothing in column `total`": 1}


def test_questions_in_a_text_file_are_refused_with_what_is_read(tmp_path: Path) -> None:
    put(tmp_path / "all_qa_pairs.txt", "what is on the desk in the image1 ?\nlamp\n")
    for path in (tmp_path, tmp_path / "all_qa_pairs.txt"):
        with pytest.raises(UserError, match=r"holds no table \(\.parquet, \.jsonl, \.json, \.csv"):
            sources.check(Source(kind="table", path=str(path)), RowKind.SFT)
