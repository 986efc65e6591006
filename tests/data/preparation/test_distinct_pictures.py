"""Training pictures that are in a benchmark: which rows are left out, and what is counted."""

import json

import pyarrow.parquet as pq
import pytest

from siqvl.data.preparation.distinct_pictures import HeldOut
from siqvl.data.preparation.prepare import load_prepared, prepare
from siqvl.data.schema import RowKind
from siqvl.errors import UserError
from siqvl.recipe import DataPrep
from tests.data.made_pictures import picture


@pytest.fixture
def benchmarks(tmp_path, made_source, make_row):
    """Two benchmarks: dark pictures, and white ones with a dark one among them."""
    folder = tmp_path / "evaluation"
    dark, white = picture("#101010"), picture("#ffffff", format="BMP")
    for name, images in {"dark": [[dark]], "mixed": [[white], [dark, white]]}.items():
        rows = [
            make_row(RowKind.EVALUATION, number, id=f"{name}/{number}", images=pictures)
            for number, pictures in enumerate(images)
        ]
        prepare([made_source(rows)], RowKind.EVALUATION, folder / name, data=DataPrep(), seed=0)
    return HeldOut({name: folder / name for name in ("dark", "mixed")})


ROWS = {
    "the dark one": [picture("#101010", format="BMP")],
    "nearly the dark one": [picture("#111111")],
    "the white one, second": [picture("red"), picture("#ffffff")],
    "nearly the white one": [picture("#fefefe")],
    "another": [picture("red")],
    "text only": [],
}
EXACT = {"the dark one", "the white one, second"}
NEAR = {"nearly the dark one", "nearly the white one"}


@pytest.mark.parametrize(
    ("level", "missing"), [("none", set()), ("exact", EXACT), ("near", EXACT | NEAR)]
)
def test_leaks_are_left_out_by_level_and_always_counted(
    tmp_path, benchmarks, made_source, make_row, level, missing
):
    rows = [make_row(id=name, images=images) for name, images in ROWS.items()]
    data, out = DataPrep(leaks=level, near=1.0), tmp_path / "out"
    manifest = prepare(
        [made_source(rows)], RowKind.SFT, out, data=data, seed=0, benchmarks=benchmarks
    )
    assert ROWS.keys() - set(load_prepared(out, RowKind.SFT)[0]["id"]) == missing
    assert manifest.leaks == {"dark": {"exact": 1, "near": 1}, "mixed": {"exact": 2, "near": 2}}
    lines = [json.loads(line) for line in (out / "quarantine.jsonl").read_text().splitlines()]
    details = {line["id"]: (line["reason"], line["detail"]) for line in lines}
    assert details.keys() == missing
    if level == "near":
        assert details == {
            "the dark one": ("picture of benchmark dark", "the picture of dark/0"),
            "nearly the dark one": (
                "picture of benchmark dark",
                "looks like the picture of dark/0",
            ),
            "the white one, second": ("picture of benchmark mixed", "the picture of mixed/0"),
            "nearly the white one": (
                "picture of benchmark mixed",
                "looks like the picture of mixed/0",
            ),
        }


def test_without_benchmarks_nothing_leaks(tmp_path, made_source, make_row):
    manifest = prepare(
        [made_source([make_row()])], RowKind.SFT, tmp_path / "out", data=DataPrep(), seed=0
    )
    assert manifest.leaks == {}
    assert manifest.unchecked == ["no benchmarks were given"]


def test_questions_are_compared_where_they_are_trained_on(
    tmp_path, benchmarks, made_source, make_row
):
    """Stage `rlvr` names benchmarks; who prepares the benchmarks themselves names none."""

    def prepared(held_out):
        colors = ("#101010", "#70a030")
        rows = [make_row(RowKind.EVALUATION, images=[picture(color)]) for color in colors]
        out = tmp_path / str(held_out is None)
        kind, data = RowKind.EVALUATION, DataPrep()
        return prepare([made_source(rows)], kind, out, data=data, seed=0, benchmarks=held_out)

    manifest = prepared(None)
    assert (manifest.rows, manifest.leaks, manifest.unchecked) == (2, {}, [])
    manifest = prepared(benchmarks)
    assert manifest.rows == 1
    assert manifest.leaks["dark"] == {"exact": 1, "near": 0}


def test_missing_or_damaged_benchmarks_are_named(tmp_path, benchmarks, made_source, make_row):
    def compared(held_out):
        source = made_source([make_row()])
        out, data = tmp_path / "out", DataPrep()
        prepare([source], RowKind.SFT, out, data=data, seed=0, benchmarks=held_out)

    with pytest.raises(UserError, match="nowhere does not exist"):
        compared(HeldOut({"dark": tmp_path / "nowhere"}))
    pictures = benchmarks.folders["mixed"] / "images.parquet"
    pictures.write_bytes(pictures.read_bytes() + b"x")
    with pytest.raises(UserError, match=r"mixed/images.parquet was altered"):
        compared(benchmarks)
    pictures.unlink()
    with pytest.raises(UserError, match=r"mixed/images.parquet is missing"):
        compared(benchmarks)


def test_each_distinct_picture_is_listed_once(benchmarks):
    folder = benchmarks.folders["mixed"]
    listed = pq.read_table(folder / "images.parquet").to_pylist()
    rows, manifest = load_prepared(folder, RowKind.EVALUATION)
    assert [picture["row"] for picture in listed] == ["mixed/0", "mixed/1"]
    assert [picture["hash"] for picture in listed] == [
        rows[0]["image_hashes"][0],
        rows[1]["image_hashes"][0],
    ]
    assert [set(picture["thumbnail"]) for picture in listed] == [{255}, {16}]
    assert (manifest.images, manifest.distinct_images, manifest.shared_images) == (3, 2, 1)
