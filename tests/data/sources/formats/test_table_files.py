"""Files of every ending read alike; damage costs one row, or is a sentence that names the file."""

import csv
import gzip
import io
import json
import os
import zipfile
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from siqvl.data import sources
from siqvl.data.preparation.prepare import prepare
from siqvl.data.schema import Row, RowKind
from siqvl.data.sources.formats import table_file
from siqvl.data.sources.formats.table_file import DamagedRecord
from siqvl.data.sources.reading.tree import Tree
from siqvl.errors import UserError
from siqvl.recipe import DataPrep, Source
from tests.data.made_pictures import picture
from tests.data.sources.published_files import read, texts

ROWS = [{"image": f"{n}.png", "question": f"What, {n}?", "answer": f'a "{n}"\nä'} for n in range(5)]


def as_lines(rows: list[Any]) -> bytes:
    return "\n".join(json.dumps(row, ensure_ascii=False) for row in rows).encode()


def separated(rows: list[dict[str, str]], delimiter: str) -> bytes:
    stream = io.StringIO()
    writer = csv.DictWriter(stream, list(rows[0]), delimiter=delimiter)
    writer.writeheader()
    writer.writerows(rows)
    return stream.getvalue().encode()


def as_parquet(rows: list[Any]) -> bytes:
    stream = io.BytesIO()
    pq.write_table(pa.Table.from_pylist(rows), stream, row_group_size=2)
    return stream.getvalue()


FILES: dict[str, Callable[[list[Any]], bytes]] = {
    "rows.jsonl": as_lines,
    "rows.json": lambda rows: json.dumps(rows, indent=1).encode(),
    "rows.csv": lambda rows: separated(rows, ","),
    "rows.tsv": lambda rows: separated(rows, "\t"),
    "rows.parquet": as_parquet,
    "rows.jsonl.gz": lambda rows: gzip.compress(as_lines(rows)),
    "rows.json.gz": lambda rows: gzip.compress(json.dumps(rows).encode()),
    "rows.csv.gz": lambda rows: gzip.compress(separated(rows, ",")),
}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for number in range(5):
        (tmp_path / f"{number}.png").write_bytes(picture(f"#00000{number}"))
    return tmp_path


def told(path: Path) -> Source:
    """A source as workers have it: nothing is to be found out by looking at its rows."""
    return table(path).model_copy(update={"choices_are": "text"})


def table(path: Path) -> Source:
    return Source(kind="table", path=str(path))


@pytest.mark.parametrize("name", FILES)
def test_every_ending_gives_the_same_rows(name: str, folder: Path) -> None:
    (folder / name).write_bytes(FILES[name](ROWS))
    for path in (folder / name, folder):
        source = table(path)
        rows = read(source, RowKind.SFT)
        assert [texts(row, "prompt") for row in rows] == [[row["question"]] for row in ROWS]
        assert [texts(row, "completion") for row in rows] == [[row["answer"]] for row in ROWS]
        assert [row["images"] for row in rows] == [[picture(f"#00000{n}")] for n in range(5)]
        assert sources.size(source, RowKind.SFT, 0) == 5
        piece = list(sources.rows(source, RowKind.SFT, 0, start=3, stop=5))
        assert piece == rows[3:5]


def test_metadata_in_json_is_no_table(folder: Path) -> None:
    (folder / "rows.jsonl").write_bytes(as_lines(ROWS))
    (folder / "dataset_info.json").write_text('{"description": "about"}')
    assert len(read(table(folder), RowKind.SFT)) == 5


def test_json_lines_may_be_called_json(folder: Path) -> None:
    (folder / "rows.json").write_bytes(as_lines(ROWS))
    assert len(read(table(folder / "rows.json"), RowKind.SFT)) == 5


def test_a_byte_order_mark_is_no_part_of_a_name(folder: Path) -> None:
    for name in ("rows.csv", "rows.jsonl"):
        (folder / name).write_bytes(b"\xef\xbb\xbf" + FILES[name](ROWS))
        assert len(read(table(folder / name), RowKind.SFT)) == 5


def test_columns_that_the_first_row_leaves_out_are_read(folder: Path) -> None:
    """JSON leaves out what is empty: a text-only row first must not cost the others a picture."""
    first = {"question": "Who?", "answer": "I"}
    (folder / "rows.jsonl").write_bytes(as_lines([first, *ROWS]))
    source = table(folder / "rows.jsonl")
    assert [len(row["images"]) for row in read(source, RowKind.SFT)] == [0, 1, 1, 1, 1, 1]


GOOD = json.dumps(ROWS[0]).encode()
DAMAGED_LINES = {
    "cut off": GOOD[:30],
    "not UTF-8": GOOD.replace(b"What", b"Wh\xff"),
    "a list": b"[1, 2]",
    "a number": b"17",
    "null": b"null",
    "deep": b"[" * 100_000,
    "long number": b'{"question": ' + b"1" * 5_000 + b"}",
    "a NUL": b"\x00\x00",
    "UTF-16": '{"a": 1}'.encode("utf-16"),
}


@pytest.mark.parametrize("name", DAMAGED_LINES)
def test_a_damaged_line_costs_one_row(name: str, folder: Path) -> None:
    lines = as_lines(ROWS).splitlines()
    lines.insert(2, DAMAGED_LINES[name].replace(b"\n", b""))
    (folder / "rows.jsonl").write_bytes(b"\n".join(lines))
    source = table(folder / "rows.jsonl")
    rows = read(source, RowKind.SFT)
    assert [index for index, row in enumerate(rows) if "damaged" in row] == [2]
    assert rows[2]["id"] == "rows/train/0000002"
    assert rows[2]["source"] == "rows"
    data = DataPrep(max_quarantined=0.5)
    manifest = prepare([source], RowKind.SFT, folder / "out", data=data, seed=0)
    assert (manifest.rows, manifest.quarantined) == (5, {"damaged record": 1})


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        (b"0.png,Wh\xe9?,x", "line 3: column `question` holds the byte 0xe9, which is no UTF-8"),
        (b"0.png,What?,x,y", "line 3: 4 fields, but the first line names 3"),
        (b"0.png", "line 3: 1 fields, but the first line names 3"),
        (b'0.png,"a" what?,x', "line 3: text after a closing quote"),
    ],
)
def test_a_damaged_record_of_a_csv_costs_one_row(line: bytes, reason: str, folder: Path) -> None:
    content = b"image,question,answer\n1.png,a,b\n" + line + b"\n2.png,c,d\n"
    (folder / "rows.csv").write_bytes(content)
    rows = read(table(folder / "rows.csv"), RowKind.SFT)
    assert [texts(row, "prompt") for row in (rows[0], rows[-1])] == [["a"], ["c"]]
    assert [reason in row.get("damaged", "") for row in rows] == [False, True, False]


def test_text_in_parquet_that_is_no_utf8_costs_one_row(folder: Path) -> None:
    """Arrow does not look at the bytes of a string column when it reads them."""
    values = pa.array([b"good", b"b\xffd", b"good"]).view(pa.string())
    columns = {"question": values, "answer": pa.array(["a", "b", "c"])}
    pq.write_table(pa.table(columns), folder / "rows.parquet")
    rows = read(table(folder / "rows.parquet"), RowKind.SFT)
    assert ["damaged" in row for row in rows] == [False, True, False]


@pytest.mark.parametrize("name", ["rows.parquet", "rows.json", "rows.jsonl.gz", "rows.csv"])
def test_a_file_that_is_damaged_as_a_whole_is_named(name: str, folder: Path) -> None:
    content = FILES[name](ROWS * 500)
    cut = content[: len(content) // 2]
    broken = "\ufeffimage,question".encode("utf-16-le")[:-1] if name.endswith("csv") else cut
    (folder / name).write_bytes(broken)
    with pytest.raises(UserError) as error:
        read(table(folder / name), RowKind.SFT)
    assert f"{name} cannot be read: " in error.value.message
    assert error.value.message.endswith("; replace it with an intact copy")


def test_a_parquet_file_with_a_damaged_page_is_named(folder: Path) -> None:
    content = bytearray(as_parquet([row | {"pad": "x" * 100} for row in ROWS * 100]))
    content[len(content) // 3 : len(content) // 2] = bytes(len(content) // 2 - len(content) // 3)
    (folder / "rows.parquet").write_bytes(content)
    with pytest.raises(UserError, match=r"rows\.parquet cannot be read: "):
        list(sources.rows(table(folder / "rows.parquet"), RowKind.SFT, 0))


def test_row_groups_before_a_piece_are_not_loaded(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pq.write_table(pa.Table.from_pylist(ROWS * 4), folder / "rows.parquet", row_group_size=4)
    loaded: list[int] = []
    original = pq.ParquetFile.iter_batches

    def iter_batches(self: Any, size: int, row_groups: list[int], **options: Any) -> Any:
        loaded.extend(row_groups)
        return original(self, size, row_groups=row_groups, **options)

    source = told(folder / "rows.parquet")
    whole = read(source, RowKind.SFT)
    monkeypatch.setattr(pq.ParquetFile, "iter_batches", iter_batches)
    assert list(sources.rows(source, RowKind.SFT, 0, start=13, stop=16)) == whole[13:16]
    assert loaded == [3]


def test_rows_may_be_read_in_any_order(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(table_file, "BATCH", 3)
    pq.write_table(pa.Table.from_pylist(ROWS * 4), folder / "rows.parquet", row_group_size=10)
    source = table(folder / "rows.parquet")
    whole = read(source, RowKind.SFT)
    unread = list(sources.unread(source, RowKind.SFT, 0))
    order = [19, 0, 7, 6, 13, 2, 18, 1]
    assert [unread[index]() for index in order] == [whole[index] for index in order]


def test_skipped_lines_are_not_parsed(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (folder / "rows.jsonl").write_bytes(as_lines(ROWS))
    parsed: list[str] = []
    original = json.JSONDecoder.decode

    def decode(self: json.JSONDecoder, text: str, *rest: Any) -> Any:
        parsed.append(text)
        return original(self, text, *rest)

    source = told(folder / "rows.jsonl")
    monkeypatch.setattr(json.JSONDecoder, "decode", decode)
    (row,) = sources.rows(source, RowKind.SFT, 0, start=4)
    assert texts(row, "prompt") == ["What, 4?"]
    assert len([text for text in parsed if "What, " in text]) == 1


SECRET = b"a file of somebody else"


@pytest.fixture
def data_set(tmp_path: Path) -> Path:
    """A data set in a folder of its own, beside files that are none of its business."""
    (tmp_path / "secret.png").write_bytes(SECRET)
    (tmp_path / "set-2").mkdir()
    (tmp_path / "set-2" / "secret.png").write_bytes(SECRET)
    inner = tmp_path / "set"
    (inner / "images" / "deep").mkdir(parents=True)
    (inner / "subset").mkdir()
    for place in ("top.png", "images/beside.png", "images/deep/below.png"):
        (inner / place).write_bytes(picture())
    return inner


def found(data_set: Path, image: Any, table_folder: str = "subset") -> Any:
    row = {"image": image, "question": "What?", "answer": "x"}
    (data_set / table_folder / "train.jsonl").write_text(json.dumps(row))
    (only,) = sources.rows(table(data_set), RowKind.SFT, 0)
    (value,) = only["images"]
    return value


@pytest.mark.parametrize(
    "name",
    ["top.png", "../top.png", "beside.png", "images/beside.png", "deep/below.png", "./top.png"],
)
def test_pictures_beside_a_table_are_found(name: str, data_set: Path) -> None:
    assert found(data_set, name) == picture()
    assert found(data_set, {"path": name, "bytes": None}) == picture()
    assert found(data_set, str(data_set / "images" / "beside.png")) == picture()


@pytest.mark.parametrize(
    "name", ["../../secret.png", "../../set-2/secret.png", "images/../../secret.png", "/etc/hosts"]
)
def test_paths_out_of_the_data_set_are_not_read(name: str, data_set: Path, tmp_path: Path) -> None:
    for path in (name, str((data_set / "subset" / name).resolve())):
        assert isinstance(found(data_set, path), str)
    value = found(data_set, str(tmp_path / "secret.png"))
    assert value.endswith(f"secret.png (it is outside of {data_set}, and not read)")
    data = DataPrep(max_quarantined=0.9)
    with pytest.raises(UserError, match="`no image data`"):
        prepare([table(data_set)], RowKind.SFT, tmp_path / "out", data=data, seed=0)


def test_a_relative_data_set_is_guarded_too(
    data_set: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(data_set)
    row = {"image": "../secret.png", "question": "What?", "answer": "x"}
    (data_set / "rows.jsonl").write_text(json.dumps(row))
    for path in (".", "rows.jsonl"):
        (only,) = sources.rows(table(Path(path)), RowKind.SFT, 0)
        assert only["images"] == ["../secret.png"]
        assert only["source"] == ("set" if path == "." else "rows")


@pytest.mark.parametrize(
    "name", ["none.png", "", "a\x00b", "x" * 5_000, "images", "https://example.org/a.png", "\ud800"]
)
def test_what_is_no_picture_file_stays_text(name: str, data_set: Path, tmp_path: Path) -> None:
    if name == "":  # a CSV has no other way to leave a picture out
        row = {"image": name, "question": "What?", "answer": "x"}
        (data_set / "train.jsonl").write_text(json.dumps(row))
        assert next(sources.rows(table(data_set), RowKind.SFT, 0))["images"] == []
        return
    value = found(data_set, name)
    assert isinstance(value, str)
    if name.startswith("https"):
        assert value == f"{name} (URLs are not fetched: download the picture and give its path)"
    with pytest.raises(UserError, match="`no image data`"):
        prepare([table(data_set)], RowKind.SFT, tmp_path / "out", data=DataPrep(), seed=0)


def test_an_empty_picture_and_one_of_40_gb_are_named_with_their_row(
    data_set: Path, tmp_path: Path
) -> None:
    (data_set / "images" / "empty.png").touch()
    (data_set / "images" / "huge.png").touch()
    os.truncate(data_set / "images" / "huge.png", 40 * 10**9)  # takes no room
    names = ["empty.png", "huge.png", "images/huge.png", "top.png"]
    rows = [{"image": name, "question": f"What, {name}?", "answer": "x"} for name in names]
    (data_set / "rows.jsonl").write_bytes(as_lines(rows))
    data = DataPrep(max_quarantined=0.9)
    prepare([table(data_set)], RowKind.SFT, tmp_path / "out", data=data, seed=0)
    lines = (tmp_path / "out" / "quarantine.jsonl").read_text().splitlines()
    found = {line["id"]: line["detail"] for line in map(json.loads, lines)}
    assert list(found) == [f"set/train/000000{n}" for n in range(3)]
    limit = "has 38,147 MiB, and pictures of at most 512 MiB are read"
    assert [*found.values()] == [
        "no picture at empty.png (the file is empty), expected encoded bytes",
        f"no picture at huge.png (the file {limit}), expected encoded bytes",
        f"no picture at images/huge.png (the file {limit}), expected encoded bytes",
    ]


def test_huge_pictures_of_one_name_are_not_read_to_be_compared(data_set: Path) -> None:
    for folder in ("images", "subset"):
        (data_set / folder / "same.png").touch()
        os.truncate(data_set / folder / "same.png", 40 * 10**9)
    assert "(the file has 38,147 MiB, and" in found(data_set, "same.png", ".")


def test_pictures_of_a_download_are_looked_at_too(tmp_path: Path) -> None:
    (tmp_path / "empty.png").touch()
    (tmp_path / "huge.png").touch()
    os.truncate(tmp_path / "huge.png", 40 * 10**9)
    with zipfile.ZipFile(tmp_path / "set.zip", "w") as archive:
        archive.writestr("empty.png", b"")
    for place in (tmp_path, tmp_path / "set.zip"):
        assert Tree(place).picture("empty.png") == "empty.png (the file is empty)"
    assert str(Tree(tmp_path).picture("huge.png")).startswith("huge.png (the file has 38,147 MiB")
    assert "has no readable file none.png" in str(Tree(tmp_path).picture_at("none.png"))


def test_a_dot_in_a_name_is_part_of_it(folder: Path) -> None:
    (folder / "v1.5").mkdir()
    (folder / "v1.5" / "rows-1.2.jsonl.gz").write_bytes(FILES["rows.jsonl.gz"](ROWS))
    for path, name in (("v1.5", "v1.5"), ("v1.5/rows-1.2.jsonl.gz", "rows-1.2")):
        assert read(table(folder / path), RowKind.SFT)[0]["source"] == name


JUNK: list[Any] = [
    None, True, -1, 2.5, float("nan"), "", "text", "[1", '{"a": 1}', b"bytes", [], {}, [None],
    [[]], [{}], [{"user": 1}], [{"from": [], "value": {}}], [{"assistant": None}], {"bytes": 3},
    {"bytes": "text", "path": 4}, {"path": ["x"]}, "\ud800", "[" * 50_000, 10**400,
]  # fmt: skip
FIELDS = {
    "a_okvqa": "image question_id question choices correct_choice_idx direct_answers rationales",
    "finevision": "images texts source relevance_ratings relevance_min",
    "llava": "id image images conversations",
    "llava_cot": "id image conversations",
    "rlaif_v": "image question chosen rejected idx",
    "rlhf_v": "image text idx",
    "scienceqa": "image question choices answer hint solution lecture",
    "table": "id image images question answer answers choices reasoning conversations chosen "
    "rejected messages prompt completion instruction input output history system query response "
    "rejected_response",
    "textvqa": "image question_id question answers",
    "vqav2": "image question_id question answers multiple_choice_answer",
}


@pytest.mark.parametrize("kind", FIELDS)
def test_adapters_raise_nothing_but_a_reason_for_what_is_in_a_row(kind: str) -> None:
    from siqvl.data.preparation.checks import check_row
    from siqvl.data.sources.reading.picture_marks import placed
    from siqvl.data.sources.reading.published import Published, TableAdapter

    adapter = sources.SOURCES[kind]
    assert isinstance(adapter, TableAdapter)
    names = FIELDS[kind].split()
    origin = Source(kind=kind, path="set", min_ratings={"relevance": 3})
    for row_kind in adapter.kinds:
        for way in adapter.ways(origin, row_kind):
            for shift in range(len(JUNK)):
                for step in (0, 1, 5):
                    record = {
                        name: JUNK[(shift + step * place) % len(JUNK)]
                        for place, name in enumerate(names)
                    }
                    one = Published(record, origin, kind, 0, lambda name: name)
                    with suppress(DamagedRecord):
                        row: Row = way(one)
                        check_row(placed(row), row_kind, DataPrep())
