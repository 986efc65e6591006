"""Prepared folders: whole or absent, the same by any route, and honest about bad rows."""

import hashlib
import json
from pathlib import Path

import pytest

from siqvl.data import sources
from siqvl.data.manifest import Manifest
from siqvl.data.preparation import pieces, workers
from siqvl.data.preparation import prepare as prepare_module
from siqvl.data.preparation.prepare import load_prepared, prepare
from siqvl.data.schema import RowKind, left_out_row, message
from siqvl.data.sources.base import Items
from siqvl.errors import UserError
from siqvl.recipe import DataPrep, Source
from tests.data.made_pictures import picture
from tests.quick import children

SHAPES = [Source(kind="shapes", max_samples=30)]


@pytest.mark.parametrize("kind", list(RowKind))
def test_rows_come_back_as_they_were(tmp_path, made_source, make_row, kind):
    rows = [make_row(kind, number) for number in range(7)]
    manifest = prepare([made_source(rows)], kind, tmp_path / "out", data=DataPrep(), seed=0)
    dataset, read = load_prepared(tmp_path / "out", kind)
    assert read == manifest
    assert manifest.rows == len(dataset) == 7
    for row, back in zip(rows, dataset, strict=True):
        assert back["images"][0].size == (8, 8)
        (found,) = back.pop("image_hashes")
        assert found == hashlib.sha256(b"8x8\n" + back["images"][0].tobytes()).hexdigest()
        assert {**row, "images": None} == {**back, "images": None}


def test_the_manifest_counts(tmp_path, made_source, make_row):
    rows = [make_row(number=number) for number in range(5)]
    rows.append(make_row(number=5, images=[], completion=[message("assistant", "a red one")]))
    manifest = prepare([made_source(rows)], RowKind.SFT, tmp_path / "o", data=DataPrep(), seed=4)
    assert (manifest.rows, manifest.images, manifest.seed) == (6, 5, 4)
    assert manifest.rows_by_source == {"made": 6}
    assert manifest.top_answers == [("blue", 5), ("a red one", 1)]
    assert manifest.image_width.mean == 8
    assert manifest.image_width.count == 5
    assert (manifest.answer_characters.minimum, manifest.answer_characters.maximum) == (4, 9)
    assert (manifest.quarantined, manifest.left_out, manifest.neutralised) == ({}, {}, 0)
    assert (manifest.rows_of_sources, manifest.distinct_images, manifest.shared_images) == (
        [6],
        5,
        0,
    )


@pytest.mark.usefixtures("quick_children")
def test_content_decides_the_fingerprint_and_nothing_else(tmp_path):
    base = dict(kind=RowKind.SFT, seed=0)
    runs = {
        "one": (SHAPES, DataPrep(), base),
        "processes": (SHAPES, DataPrep(processes=2), base),
        "shards": (SHAPES, DataPrep(rows_per_shard=7), base),
        "seed": (SHAPES, DataPrep(), base | {"seed": 1}),
        "kind": (SHAPES, DataPrep(), base | {"kind": RowKind.PREFERENCE}),
        "fewer": ([Source(kind="shapes", max_samples=29)], DataPrep(), base),
    }
    found = {
        name: prepare(sources, out=tmp_path / name, data=data, **options)
        for name, (sources, data, options) in runs.items()
    }
    same = found["one"].fingerprint
    assert found["processes"] == found["one"]
    assert found["shards"].fingerprint == same
    assert len(found["shards"].shards) == 5
    assert len({found[name].fingerprint for name in ("one", "seed", "kind", "fewer")}) == 4
    for file in ("manifest.json", "shards/part-00000.parquet", "quarantine.jsonl"):
        one, two = (tmp_path / name / file for name in ("one", "processes"))
        assert one.read_bytes() == two.read_bytes()
    rows, _ = load_prepared(tmp_path / "one", RowKind.SFT)
    again, _ = load_prepared(tmp_path / "shards", RowKind.SFT)
    assert rows["id"] == again["id"]


BAD = {
    "undecodable image": {"images": [picture(size=(90, 90))[:-30]]},
    "image too large": {"images": [picture(size=(200, 200))]},
    "no image data": {"images": [None]},
    "wrong type": {"completion": [message("assistant", 7)]},
    "empty completion": {"completion": [message("assistant", " \n")]},
    "empty prompt": {"prompt": []},
    "empty id": {"id": ""},
    "control token in text": {"prompt": [message("user", "hi<|im_end|>\n<|im_start|>system")]},
    "wrong roles": {"completion": [message("user", "blue")]},
    "invalid text": {"prompt": [message("user", "\ud800")]},
    "text too long": {"prompt": [message("user", "long " * 200)]},
    "too many images": {"images": [picture()] * 4},
    "damaged record": {"damaged": "line 7: unexpected end"},
}


def test_bad_rows_go_into_quarantine(tmp_path, made_source, make_row):
    rows = [make_row(number=number) for number in range(20)]
    rows += [make_row(number=100 + i, **columns) for i, columns in enumerate(BAD.values())]
    rows += [make_row(number=0), make_row(number=3, id="made/3b")]
    data = DataPrep(max_quarantined=0.5, max_image_pixels=10_000, max_characters=900, max_images=3)
    manifest = prepare([made_source(rows)], RowKind.SFT, tmp_path / "out", data=data, seed=0)
    assert manifest.rows == 20
    assert manifest.quarantined == dict.fromkeys(BAD, 1)
    assert manifest.left_out == {"duplicate": 2}
    lines = (tmp_path / "out" / "quarantine.jsonl").read_text().splitlines()
    listed = [json.loads(line) for line in lines]
    assert [line["reason"] for line in listed] == [*BAD, "duplicate", "duplicate"]
    # by their content, whatever they are called; the id of the first was taken by row 0
    assert [line["id"] for line in listed][-2:] == [f"made/0~1.{20 + len(BAD)}", "made/3b"]
    assert all(set(line) == {"id", "source", "reason", "detail"} for line in listed)
    details = {line["reason"]: line["detail"] for line in listed}
    assert details["image too large"] == "200x200 pixels, 10000 are allowed"
    assert details["too many images"] == "4 images, 3 are allowed"
    assert details["damaged record"] == "line 7: unexpected end"


def test_evaluation_rows_are_never_deduplicated(tmp_path, made_source, make_row):
    rows = [make_row(RowKind.EVALUATION, 1, id=str(number)) for number in range(3)]
    out = tmp_path / "out"
    assert prepare([made_source(rows)], RowKind.EVALUATION, out, data=DataPrep(), seed=0).rows == 3


def test_too_many_bad_rows_fail_with_the_commonest_reason(tmp_path, made_source, make_row):
    rows = [make_row(number=number) for number in range(7)]
    rows += [make_row(number=7 + i, completion=[message("assistant", "")]) for i in range(2)]
    rows += [make_row(number=9, images=[b"x"])]
    with pytest.raises(UserError) as error:
        prepare([made_source(rows)], RowKind.SFT, tmp_path / "out", data=DataPrep(), seed=0)
    assert error.value.message == (
        "3 of 10 rows are bad (30.0%, allowed are 2.0%), most often `empty completion` (2 times, "
        "for example made/7); repair the source or raise `data.max_quarantined`"
    )
    assert not (tmp_path / "out").exists()


def test_raising_the_threshold_checks_no_row_again(tmp_path, made_source, make_row, monkeypatch):
    rows = [make_row(number=number) for number in range(7)] + [make_row(number=9, images=[b"x"])]
    source, out = made_source(rows), tmp_path / "out"
    with pytest.raises(UserError, match=r"1 of 8 rows are bad \(12.5%, allowed are 2.0%\)"):
        prepare([source], RowKind.SFT, out, data=DataPrep(), seed=0)
    monkeypatch.setattr(workers, "check_row", lambda *_: pytest.fail("a row was checked again"))
    manifest = prepare([source], RowKind.SFT, out, data=DataPrep(max_quarantined=0.2), seed=0)
    assert (manifest.rows, manifest.quarantined) == (7, {"undecodable image": 1})
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_it_stops_as_soon_as_no_good_row_can_make_up_for_the_bad_ones(tmp_path, monkeypatch):
    read = []

    def build(index):
        read.append(index)
        return {"id": str(index), "source": "half", "damaged": "torn"}

    class Half:
        kinds = frozenset(RowKind)

        def check(self, source, kind):
            pass

        def rows(self, source, kind, seed):
            return Items(100_000, build)

    monkeypatch.setitem(sources.SOURCES, "half", Half())
    half, data = Source(kind="half"), DataPrep(max_quarantined=0.01)
    with pytest.raises(UserError) as error:
        prepare([half], RowKind.SFT, tmp_path / "out", data=data, seed=0)
    assert error.value.message == (
        "1024 of the 1024 rows checked so far are bad, more than 1.0% of all 100000 rows, most "
        "often `damaged record` (1024 times, for example 0: torn); repair the source or raise "
        "`data.max_quarantined`"
    )
    assert len(read) == 1024


def test_rows_that_a_source_leaves_out_are_counted_and_are_not_bad(tmp_path, made_source, make_row):
    rows = [make_row(number=number) for number in range(3)]
    rows += [left_out_row(f"low/{n}", "rated too low", source="made") for n in range(9)]
    out = tmp_path / "out"
    manifest = prepare([made_source(rows)], RowKind.SFT, out, data=DataPrep(), seed=0)
    assert (manifest.rows, manifest.quarantined) == (3, {})
    assert manifest.left_out == {"rated too low": 9}
    lines = (out / "quarantine.jsonl").read_text().splitlines()
    assert [json.loads(line)["id"] for line in lines] == [f"low/{n}" for n in range(9)]
    with pytest.raises(UserError, match="none of 9 rows is left: 9 are left out as `rated too low"):
        prepare([made_source(rows[3:])], RowKind.SFT, tmp_path / "b", data=DataPrep(), seed=0)


def test_rows_of_each_source_stand_together_and_are_counted(tmp_path, made_source, make_row):
    rows = [make_row(number=number) for number in range(5)]
    rows[3] |= {"images": [b"x"]}
    made = made_source(rows)
    manifest = prepare(
        [SHAPES[0], made, Source(kind="shapes", max_samples=3, split="test")],
        RowKind.SFT,
        tmp_path / "out",
        data=DataPrep(max_quarantined=0.1),
        seed=0,
    )
    assert manifest.rows_of_sources == [30, 4, 3]
    ids = load_prepared(tmp_path / "out", RowKind.SFT)[0]["id"]
    assert ids[30:34] == ["made/0", "made/1", "made/2", "made/4"]
    assert all("shapes/test" in row_id for row_id in ids[34:])


def test_nothing_at_all_is_an_error(tmp_path, made_source):
    with pytest.raises(UserError, match="the sources gave no rows at all"):
        prepare([made_source([])], RowKind.SFT, tmp_path / "out", data=DataPrep(), seed=0)


def test_literal_image_tokens_are_neutralised_and_counted(tmp_path, made_source, make_row):
    row = make_row(prompt=[message("user", "what is <|image_pad|><|vision_start|>?")])
    out = tmp_path / "out"
    manifest = prepare([made_source([row])], RowKind.SFT, out, data=DataPrep(), seed=0)
    assert manifest.neutralised == 2
    text = load_prepared(out, RowKind.SFT)[0][0]["prompt"][0]["content"]
    assert "<|image_pad|>" not in text
    assert "image_pad" in text


def test_an_exception_in_the_middle_leaves_nothing(tmp_path, monkeypatch, made_source, make_row):
    def failing():
        yield from (make_row(number=number) for number in range(200))
        raise RuntimeError("the disk is gone")

    source = made_source(failing())
    with pytest.raises(RuntimeError, match="the disk is gone"):
        prepare([source], RowKind.SFT, tmp_path / "out", data=DataPrep(rows_per_shard=10), seed=0)
    assert not (tmp_path / "out").exists()


def test_a_failure_leaves_the_earlier_data_as_it_was(tmp_path, made_source, make_row):
    out = tmp_path / "out"
    before = prepare(SHAPES, RowKind.SFT, out, data=DataPrep(), seed=0)
    bad = made_source([make_row(images=[b"x"])])
    with pytest.raises(UserError):
        prepare([bad], RowKind.SFT, out, data=DataPrep(), seed=0)
    assert load_prepared(out, RowKind.SFT)[1] == before
    after = prepare(SHAPES, RowKind.SFT, out, data=DataPrep(), seed=1)
    assert load_prepared(out, RowKind.SFT)[1] == after != before
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_a_foreign_folder_is_never_replaced(tmp_path):
    (tmp_path / "thesis.txt").write_text("years of work")
    with pytest.raises(UserError, match="exists and is no prepared data"):
        prepare(SHAPES, RowKind.SFT, tmp_path, data=DataPrep(), seed=0)
    with pytest.raises(UserError, match="is a file"):
        prepare(SHAPES, RowKind.SFT, tmp_path / "thesis.txt", data=DataPrep(), seed=0)
    assert (tmp_path / "thesis.txt").read_text() == "years of work"


def test_all_sources_are_checked_before_any_work(tmp_path, monkeypatch):
    monkeypatch.setattr(prepare_module, "prepare_pieces", lambda *_, **__: pytest.fail("began"))
    wrong = [*SHAPES, Source(kind="easy_vqa", path=str(tmp_path / "missing"))]
    with pytest.raises(UserError, match="missing does not exist; correct `path`"):
        prepare(wrong, RowKind.SFT, tmp_path / "out", data=DataPrep(), seed=0)
    with pytest.raises(UserError, match="no source is given"):
        prepare([], RowKind.SFT, tmp_path / "out", data=DataPrep(), seed=0)


def break_kind(out: Path) -> None:
    pass


def remove_manifest(out: Path) -> None:
    (out / "manifest.json").unlink()


def remove_shard(out: Path) -> None:
    (out / "shards" / "part-00001.parquet").unlink()


def alter_shard(out: Path) -> None:
    shard = out / "shards" / "part-00001.parquet"
    content = bytearray(shard.read_bytes())
    content[len(content) // 2] ^= 1
    shard.write_bytes(content)


def age_manifest(out: Path) -> None:
    file = out / "manifest.json"
    old = json.loads(file.read_text())
    del old["left_out"], old["pictures"]  # keys that version 1 had not
    file.write_text(json.dumps(old | {"schema_version": 1, "duplicates": 0}))


def damage_manifest(out: Path) -> None:
    (out / "manifest.json").write_text("{")


@pytest.mark.parametrize(
    ("breakage", "message"),
    [
        (break_kind, "{out} holds sft rows, but preference rows are needed here"),
        (
            remove_manifest,
            "{out} holds no prepared data (manifest.json is missing); prepare it first",
        ),
        (remove_shard, "{out}/shards/part-00001.parquet is missing; prepare the data again"),
        (
            alter_shard,
            "{out}/shards/part-00001.parquet was altered after it was prepared; "
            "prepare the data again",
        ),
        (
            age_manifest,
            "{out}/manifest.json has schema version 1, this code reads 2; prepare the data again",
        ),
        (damage_manifest, "{out}/manifest.json is damaged: Invalid JSON"),
    ],
)
def test_what_is_wrong_with_a_folder_is_named(tmp_path, breakage, message):
    out = tmp_path / "out"
    prepare(SHAPES, RowKind.SFT, out, data=DataPrep(rows_per_shard=20), seed=0)
    breakage(out)
    kind = RowKind.PREFERENCE if breakage is break_kind else RowKind.SFT
    with pytest.raises(UserError) as error:
        load_prepared(out, kind)
    assert error.value.message.startswith(message.format(out=out))


def test_a_missing_folder_is_named(tmp_path):
    with pytest.raises(UserError, match="nowhere does not exist; prepare the data first"):
        load_prepared(tmp_path / "nowhere", RowKind.SFT)


def test_large_sets_go_through_the_arrow_cache(tmp_path, monkeypatch):
    from siqvl.data import shards

    out = tmp_path / "out"
    prepare(SHAPES, RowKind.SFT, out, data=DataPrep(), seed=0)
    small, _ = load_prepared(out, RowKind.SFT)
    monkeypatch.setattr(shards, "IN_MEMORY_BYTES", 0)
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path / "cache")
    large, _ = load_prepared(out, RowKind.SFT)
    assert large.features == small.features
    assert large[3]["prompt"] == small[3]["prompt"]
    assert large[3]["images"][0].tobytes() == small[3]["images"][0].tobytes()


def test_the_manifest_survives_a_round_trip(tmp_path):
    manifest = prepare(SHAPES, RowKind.SFT, tmp_path / "out", data=DataPrep(), seed=0)
    assert Manifest.read(tmp_path / "out") == manifest


def a_table(folder: Path) -> Source:
    folder.mkdir(parents=True)
    (folder / "questions.csv").write_text("question,answer\nWhat color?,blue\n")
    return Source(kind="table", path=str(folder))


def test_prepared_data_keeps_out_of_the_folder_it_is_made_from(tmp_path):
    """It would be read as part of the data: a table in a sub-folder is one of the data set."""
    source = a_table(tmp_path / "data")
    with pytest.raises(UserError, match="would go into its own folder"):
        prepare([source], RowKind.SFT, tmp_path / "data" / "out", data=DataPrep(), seed=0)
    assert prepare([source], RowKind.SFT, tmp_path / "out", data=DataPrep(), seed=0).rows == 1


def test_two_runs_prepare_one_folder_at_once(tmp_path, monkeypatch):
    """The first is writing a piece when the second begins, and still is when that ends."""
    out, sync, found = tmp_path / "out", pieces.sync, []

    def meanwhile(path):
        if not found:
            found.append(path)
            other = children.Process(target=prepare, args=arguments, kwargs=options)
            other.start()
            other.join()
            found.append(other.exitcode)
            found.append((out / "manifest.json").read_bytes())
        sync(path)

    arguments, options = (SHAPES, RowKind.SFT, out), {"data": DataPrep(), "seed": 0}
    monkeypatch.setattr(pieces, "sync", meanwhile)
    assert prepare(*arguments, **options).rows == 30
    assert found[1:] == [0, (out / "manifest.json").read_bytes()]
    assert [path.name for path in tmp_path.iterdir()] == ["out"]
