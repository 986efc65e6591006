"""A piece gives back what was written; a picture that rows share is in it once."""

from pathlib import Path

import numpy as np
import pytest

from siqvl.data.preparation.checks import Checked, check_row
from siqvl.data.preparation.pieces import find_pieces, is_whole, read_piece, read_summary
from siqvl.data.preparation.pieces import write_piece as write
from siqvl.data.schema import RowKind, features
from siqvl.recipe import DataPrep
from tests.data.made_pictures import encoded


def noise(seed: int) -> bytes:
    from PIL import Image

    pixels = np.random.default_rng(seed).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    return encoded(Image.fromarray(pixels), "PNG")


@pytest.mark.parametrize("kind", RowKind)
def test_what_is_read_is_what_was_written(tmp_path: Path, make_row, kind: RowKind) -> None:
    one, other = noise(0), noise(1)
    pictures = [[one], [], [other, one, other], [one]]
    rows = [make_row(kind, number=n, images=images) for n, images in enumerate(pictures)]
    rows.insert(1, {**rows[0], "meta": "no JSON"})
    checked = [check_row(row, kind, DataPrep()) for row in rows]
    assert [bool(each.reason) for each in checked] == [False, True, False, False, False]
    summary = write(tmp_path, 3, 7, iter(checked), kind)
    ((key, path),) = find_pieces(tmp_path).items()
    assert (key, path.name) == ((3, 7), summary.file)
    assert is_whole(path)
    assert read_summary(path).quarantined == summary.quarantined == {"wrong type": 1}
    ((found, table),) = read_piece(path, kind)
    assert table.schema.equals(features(kind).arrow_schema, check_metadata=True)
    for each, back, row in zip(checked, found, table.to_pylist(), strict=True):
        assert vars(back) | {"row": None, "sizes": None} == vars(
            Checked(**vars(each)) if each.row else each
        ) | {"row": None, "sizes": None}
        assert [tuple(size) for size in back.sizes] == each.sizes
        assert row == (each.row or dict.fromkeys(table.column_names))
    assert one in path.read_bytes()
    assert path.read_bytes().count(one) == path.read_bytes().count(other) == 1


def test_batches_end_where_pictures_are_large(tmp_path: Path, make_row) -> None:
    from siqvl.data.preparation import pieces

    row = make_row(RowKind.SFT, images=[noise(0)])
    checked = [check_row(row, RowKind.SFT, DataPrep()) for _ in range(70)]
    for each in checked[:3]:
        each.stored_bytes = pieces.GROUP_BYTES
    summary = write(tmp_path, 0, 0, iter(checked), RowKind.SFT)
    batches = list(read_piece(tmp_path / summary.file, RowKind.SFT))
    assert [len(found) for found, _ in batches] == [1, 1, 1, 64, 3]
    assert [len(table) for _, table in batches] == [1, 1, 1, 64, 3]


def test_a_block_without_rows_leaves_nothing(tmp_path: Path) -> None:
    assert write(tmp_path, 0, 0, iter([]), RowKind.SFT).file == ""
    assert list(tmp_path.iterdir()) == []
