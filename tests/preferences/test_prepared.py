"""Prepared rows that are written anew are those that were there."""

from pathlib import Path

import pytest

from siqvl.data.preparation.prepare import prepare
from siqvl.data.schema import RowKind
from siqvl.preferences.prepared import PreparedRows, write_prepared
from siqvl.recipe import DataPrep, Source


@pytest.mark.parametrize("sizes", [[300, 20], [5]])
def test_every_file_comes_out_as_prepare_wrote_it(tmp_path: Path, sizes: list[int]) -> None:
    """300 rows take more than one piece."""
    families = ["vqa", "reasoning"]
    sources = [
        Source(kind="shapes", subsets=[family], max_samples=size)
        for family, size in zip(families, sizes, strict=False)
    ]
    data = DataPrep(rows_per_shard=100)
    prepare(sources, RowKind.PREFERENCE, tmp_path / "given", data=data, seed=3)
    rows = PreparedRows(tmp_path / "given").of_sources(data, 3)
    write_prepared(rows, tmp_path / "made", data=data, seed=3)
    given, made = (
        {file.name: file.read_bytes() for file in (tmp_path / name).rglob("*") if file.is_file()}
        for name in ("given", "made")
    )
    assert made == given
    assert len(given) == 4 + -(-sum(sizes) // 100)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["given", "made"]
