"""What becomes of each source's rows: counted, shown, and called by an id of their own."""

import csv
import html
import json
import logging
import re
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from siqvl.data.manifest import Manifest, SourceRows
from siqvl.data.preparation.distinct_pictures import HeldOut
from siqvl.data.preparation.prepare import prepare
from siqvl.data.preparation.summary import summary_of
from siqvl.data.preparation.tally import SourceExamples
from siqvl.data.schema import RowKind, left_out_row, message
from siqvl.data.shards import load_prepared
from siqvl.recipe import DataPrep, Source
from tests.data.made_pictures import picture

COLORS = ("red", "blue", "green", "black", "white", "yellow")


def table(folder: Path, rows: list[dict[str, str]]) -> Source:
    """`train.csv` with a picture of its own for every row that names one."""
    folder.mkdir(parents=True)
    for row in rows:
        if row["image"]:
            (folder / row["image"]).write_bytes(picture(row["answer"]))
    with open(folder / "train.csv", "w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    return Source(kind="table", path=str(folder / "train.csv"))


def questions(count: int, about: str, **columns: str) -> list[dict[str, str]]:
    return [
        {"image": f"{one}.png", "question": f"{about} {one}?", "answer": COLORS[one], **columns}
        for one in range(count)
    ]


@pytest.mark.parametrize("kind", [RowKind.SFT, RowKind.EVALUATION])
def test_two_tables_of_one_name_keep_every_row(tmp_path, kind):
    sources = [table(tmp_path / "a", questions(6, "a")), table(tmp_path / "b", questions(3, "b"))]
    out = tmp_path / "out"
    manifest = prepare(sources, kind, out, data=DataPrep(), seed=0, benchmarks=HeldOut())
    rows, _ = load_prepared(out, kind)
    first = [f"train/train/{number:07d}" for number in range(6)]
    assert rows["id"] == first + [f"train/train/{number:07d}~2.{number}" for number in range(3)]
    asked = rows["question"] if kind is RowKind.EVALUATION else rows["prompt"]
    texts = [one if isinstance(one, str) else one[0]["content"] for one in asked]
    assert texts == [row["question"] for row in questions(6, "a") + questions(3, "b")]
    assert (manifest.quarantined, manifest.left_out) == ({}, {})
    assert [rows.renamed for rows in manifest.of_sources] == [0, 3]
    assert "3 rows of source `table`" in manifest.remarks()[0]
    listed = pq.read_table(out / "images.parquet")["row"].to_pylist()
    assert set(listed) <= set(rows["id"])


@pytest.mark.parametrize("kind", [RowKind.SFT, RowKind.EVALUATION])
def test_an_id_a_picture_may_have_several_questions(tmp_path, kind):
    source = table(tmp_path / "a", questions(4, "a", id="42"))
    out = tmp_path / "out"
    prepare([source], kind, out, data=DataPrep(), seed=0, benchmarks=HeldOut())
    ids = load_prepared(out, kind)[0]["id"]
    assert ids == ["train/train/42"] + [f"train/train/42~1.{number}" for number in (1, 2, 3)]


def test_an_id_that_looks_like_one_that_was_given_is_another_one(tmp_path, made_source, make_row):
    ids = ["x~1.2", "x", "x", "x", "x~1.3"]
    rows = [make_row(number=number, id=one) for number, one in enumerate(ids)]
    prepare([made_source(rows)], RowKind.SFT, tmp_path / "out", data=DataPrep(), seed=0)
    found = load_prepared(tmp_path / "out", RowKind.SFT)[0]["id"]
    assert found == ["x~1.2", "x", "x~1.2~1.2", "x~1.3", "x~1.3~1.4"]


def test_a_row_is_called_the_same_wherever_it_is_named(tmp_path, made_source, make_row):
    rows = [
        make_row(number=1, id="x"),
        make_row(number=2, id="x"),
        make_row(number=3, id="x", images=[b"no picture"]),
        make_row(number=1, id="x"),
    ]
    out, data = tmp_path / "out", DataPrep(max_quarantined=0.9)
    prepare([made_source(rows)], RowKind.SFT, out, data=data, seed=0)
    assert load_prepared(out, RowKind.SFT)[0]["id"] == ["x", "x~1.1"]
    assert pq.read_table(out / "images.parquet")["row"].to_pylist() == ["x", "x~1.1"]
    lines = [json.loads(line) for line in (out / "quarantine.jsonl").read_text().splitlines()]
    assert [(line["id"], line["reason"]) for line in lines] == [
        ("x~1.2", "undecodable image"),
        ("x~1.3", "duplicate"),
    ]
    page = html.unescape((out / "report.html").read_text())
    for name in ("<code>x</code>", "<code>x~1.1</code>", "<code>x~1.2</code>"):
        assert name in page


@pytest.fixture
def three(tmp_path, made_source, make_row, monkeypatch) -> tuple[Path, Manifest]:
    """Prepared from a made source with all that may befall a row, a table, and one of text."""
    shown = make_row(RowKind.EVALUATION, 77)
    benchmark = tmp_path / "benchmark"
    prepare([made_source([shown])], RowKind.EVALUATION, benchmark, data=DataPrep(), seed=0)
    rows = [make_row(number=number) for number in range(5)]
    rows += [make_row(number=10, images=[]), make_row(number=11, images=[b"x"])]
    rows += [make_row(number=2, id="again"), make_row(number=77)]
    rows += [left_out_row(f"low/{n}", "rated too low", source="made") for n in range(3)]
    made = made_source(rows)
    photos = table(tmp_path / "photos", questions(6, "photo"))
    photos = photos.model_copy(update={"columns": {"question": "question"}, "weight": 2.0})
    text = table(tmp_path / "text", [row | {"image": ""} for row in questions(3, "text")])
    out = tmp_path / "out"
    manifest = prepare(
        [made, photos, text],
        RowKind.SFT,
        out,
        data=DataPrep(max_quarantined=0.2),
        seed=0,
        benchmarks=HeldOut({"shown": benchmark}),
    )
    return out, manifest


def test_every_source_is_counted_by_itself(three):
    out, manifest = three
    made, photos, text = manifest.of_sources
    assert made == SourceRows(
        read=12, kept=6, bad=1, duplicate=1, leaked=1, left_out=3, without_picture=1
    )
    assert photos == SourceRows(read=6, kept=6)
    assert text == SourceRows(read=3, kept=3, without_picture=3, renamed=3)
    assert [rows.kept for rows in manifest.of_sources] == manifest.rows_of_sources
    assert Manifest.read(out) == manifest


def test_a_source_without_any_picture_is_said_everywhere(three, caplog, tmp_path):
    out, manifest = three
    said = f"no row of source `table` ({manifest.sources[2].path}) has a picture"
    assert said in manifest.remarks()
    assert len([one for one in manifest.remarks() if "has a picture" in one]) == 1
    assert said in summary_of(manifest, "out")
    page = html.unescape((out / "report.html").read_text())
    assert said[0].upper() + said[1:] in page
    with caplog.at_level(logging.WARNING):
        prepare([manifest.sources[2]], RowKind.SFT, tmp_path / "b", data=DataPrep(), seed=0)
    assert said in caplog.text


def test_the_page_and_the_summary_say_what_became_of_every_source(three):
    out, manifest = three
    page = html.unescape((out / "report.html").read_text())
    (section,) = re.findall(r"<h2>Sources</h2>(.*?)<h2>", page, flags=re.DOTALL)
    cells = [re.findall(r'class="n">([\d,]+)<', row) for row in section.split("<tr>")[2:]]
    assert cells == [
        ["12", "6", "1", "1", "1", "3", "1"],
        ["6", "6", "0", "0", "0", "0", "0"],
        ["3", "3", "0", "0", "0", "0", "3"],
    ]
    assert section.count("split train") == 3
    assert "question is column <code>question</code>" in section
    assert str(manifest.sources[1].path) in section
    lines = summary_of(manifest, "out").splitlines()
    assert [line.split()[-7:] for line in lines[2:5]] == cells


def test_every_source_has_examples(three):
    out, _ = three
    page = html.unescape((out / "report.html").read_text())
    *_, examples = page.split("<h2>Examples</h2>")
    groups = [re.findall(r"<code>([^<]*)</code>", part) for part in examples.split("<h3>")[1:]]
    assert len(groups) == 3
    assert all(len(group) >= 2 for group in groups)
    assert sum(map(len, groups)) >= 12
    assert [message for message in groups[0] if message.startswith("made/")]


@pytest.mark.parametrize("sizes", [[1000, 1, 3], [2, 500, 2, 2], [0, 40], [1], [5] * 30])
def test_examples_are_spread_over_all_rows_and_two_of_each_source_at_least(sizes):
    examples = SourceExamples(12, len(sizes))
    for source, size in enumerate(sizes):
        for number in range(size):
            examples.offer(source, lambda source=source, number=number: {"of": (source, number)})
    found = [[row["of"] for row in rows] for rows in examples.rows]
    for source, size in enumerate(sizes):
        assert found[source] == sorted(set(found[source]))
        assert {one[0] for one in found[source]} <= {source}
        assert min(size, 2) <= len(found[source]) <= max(12, size)
    assert min(sum(sizes), 12) <= sum(map(len, found)) <= 12 + 2 * len(sizes)


def test_conversations_of_two_sources_with_the_same_ids(tmp_path, made_source, make_row):
    """As two `llava` sets have, or any adapter that numbers its rows."""
    rows = [make_row(number=number) for number in range(3)]
    others = [row | {"completion": [message("assistant", "another")]} for row in rows]
    made = made_source(rows + others)
    manifest = prepare([made], RowKind.SFT, tmp_path / "out", data=DataPrep(), seed=0)
    assert (manifest.rows, manifest.left_out, manifest.quarantined) == (6, {}, {})
    assert len(set(load_prepared(tmp_path / "out", RowKind.SFT)[0]["id"])) == 6
