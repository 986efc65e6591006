"""JSON: lists, lines, rows by their ids, one object a file; what is about a data set is no row."""

import gzip
import json
from pathlib import Path
from typing import Any

import pytest

from siqvl.data import sources
from siqvl.data.schema import RowKind
from siqvl.data.sources.formats.json_file import object_files, object_row
from siqvl.data.sources.formats.table_file import (
    DamagedRecord,
)
from siqvl.data.sources.reading.folder import files_below
from siqvl.errors import UserError
from siqvl.recipe import Source
from tests.data.sources.formats.read_rows import read

ROWS = {f"{n}": {"question": f"What, {n}?", "answer": f"ä{n}"} for n in range(5)}
BY_ID = [{"key": key, **row} for key, row in ROWS.items()]


def written(path: Path, content: Any) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    if not isinstance(content, str | bytes):
        content = json.dumps(content, ensure_ascii=False)
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


def questions(path: Path) -> list[str]:
    source = Source(kind="table", path=str(path))
    sources.check(source, RowKind.SFT)
    return [row["prompt"][0]["content"] for row in sources.rows(source, RowKind.SFT, 0)]


def as_lines(rows: Any, ending: str = "\n") -> str:
    return ending.join(json.dumps(row, ensure_ascii=False) for row in rows)


@pytest.mark.parametrize("indent", [None, 1])
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-32"])
def test_rows_by_id_in_a_file_and_in_a_folder(
    indent: int | None, encoding: str, tmp_path: Path
) -> None:
    text = json.dumps(ROWS, indent=indent, ensure_ascii=False)
    path = written(tmp_path / "problems.json", text.encode(encoding))
    assert read(path) == BY_ID
    assert questions(path) == questions(tmp_path) == [row["question"] for row in BY_ID]
    packed = tmp_path / "packed" / "problems.json.gz"
    packed.parent.mkdir()
    packed.write_bytes(gzip.compress(text.encode(encoding)))
    assert read(packed) == BY_ID
    assert len(questions(packed.parent)) == 5


def test_a_row_that_has_a_key_of_its_own_is_named(tmp_path: Path) -> None:
    path = written(tmp_path / "rows.json", {"a": {"key": "a"}, "b": {"key": "c"}})
    with pytest.raises(UserError, match="row `b` has a column `key` of its own, which is what"):
        read(path)
    assert read(written(path, {"a": {"key": "a", "x": 1}})) == [{"key": "a", "x": 1}]


def test_an_object_with_lists_inside_names_them(tmp_path: Path) -> None:
    content = {"info": {"year": 2017}, "data": [{"a": 1}, {"a": 2}], "annotations": [{"b": 1}]}
    for text in (json.dumps(content), json.dumps(content, indent=2)):
        with pytest.raises(UserError) as error:
            read(written(tmp_path / "rows.json", text))
        assert (
            "one object that holds `data` (2 rows), `annotations` (1 rows)" in error.value.message
        )


def test_one_value_among_rows_by_id_that_is_no_row_is_named(tmp_path: Path) -> None:
    path = written(tmp_path / "rows.json", {**ROWS, "version": "1.0"})
    with pytest.raises(UserError, match="rows by their ids are objects, and `version` is str"):
        read(path)


@pytest.mark.parametrize("content", ["17", '"text"', "null"])
def test_what_is_neither_list_nor_object_is_named(content: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"rows\.json holds no rows but "):
        read(written(tmp_path / "rows.json", content))


ABOUT: dict[str, Any] = {
    "dataset_info.json": {"description": "about", "features": {"a": {"dtype": "string"}}},
    "dataset_infos.json": {"default": {"description": "x"}, "other": {"description": "y"}},
    "state.json": {"_data_files": [{"filename": "data.arrow"}], "_split": "train"},
    "config.json": {"text_config": {"size": 1}, "vision_config": {"size": 2}},
    "metadata.json": {"a.png": {"width": 1}, "b.png": {"width": 2}},
    "splits.json": {"train": ["1", "2"], "val": ["3"]},
    "special_tokens_map.json": {"eos_token": {"content": "</s>"}},
    "000.json": {"company": "A", "total": "1.00"},
}


@pytest.mark.parametrize("name", ABOUT)
def test_what_is_about_a_data_set_is_no_row(name: str, tmp_path: Path) -> None:
    """Beside tables no object is read; alone, none of these gives a row and exit 0."""
    written(tmp_path / name, ABOUT[name])
    with pytest.raises(UserError, match=r"holds no table|rows need"):
        questions(tmp_path)
    written(tmp_path / "rows.jsonl", as_lines(ROWS.values()))
    assert len(questions(tmp_path)) == 5


@pytest.mark.parametrize("damage", [None, 0, 1, 3])
def test_json_lines_called_json_in_a_folder(damage: int | None, tmp_path: Path) -> None:
    """NLVR's `dev/dev.json`."""
    lines = as_lines(ROWS.values()).splitlines()
    if damage is not None:
        lines[damage] = lines[damage][:10]
    path = written(tmp_path / "dev" / "dev.json", "\n".join(lines))
    source = Source(kind="table", path=str(tmp_path), split="dev")
    sources.check(source, RowKind.SFT)
    rows = [*sources.rows(source, RowKind.SFT, 0)]
    assert ["damaged" in row for row in rows] == [n == damage for n in range(5)]
    if damage is not None:
        assert f"line {damage + 1}, character " in read(path)[damage]


def test_one_object_is_one_row_however_it_is_laid_out(tmp_path: Path) -> None:
    for indent in (None, 1):
        assert read(written(tmp_path / "row.json", json.dumps(ROWS["0"], indent=indent))) == [
            ROWS["0"]
        ]


def test_line_numbers_are_those_of_the_file(tmp_path: Path) -> None:
    path = written(tmp_path / "rows.jsonl", '{"a": 1}\n\n{"a": \n[1]\n{"a": 2}\n')
    found = read(path)
    assert found[1].startswith("line 3, character 8: Expecting value: ")
    assert found[2] == "line 4: expected an object, got [1]"
    assert [found[0], found[3]] == [{"a": 1}, {"a": 2}]


@pytest.mark.parametrize("ending", ["\n", "\r\n", "\r"])
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-32"])
def test_lines_in_every_encoding_and_with_every_end(
    encoding: str, ending: str, tmp_path: Path
) -> None:
    path = written(tmp_path / "rows.jsonl", as_lines(ROWS.values(), ending).encode(encoding))
    assert read(path) == [*ROWS.values()]


def test_a_byte_that_is_no_utf8_costs_one_row_in_lines_that_end_with_cr(tmp_path: Path) -> None:
    content = as_lines(ROWS.values(), "\r").encode().replace(b"What, 2", b"Wh\xe9t, 2")
    found = read(written(tmp_path / "rows.jsonl", content))
    assert [isinstance(row, str) for row in found] == [False, False, True, False, False]
    assert "line 3: 'utf-8' codec can't decode byte 0xe9" in found[2]


TWICE = [
    ('{"answer": 1, "answer": 2}', "answer"),
    ('{"a": {"b": [{"c": 1, "d": 2, "c": 3}]}}', "c"),
    ('{"a": {"b": 1}, "c": [], "a": 1}', "a"),
]


@pytest.mark.parametrize(("row", "key"), TWICE)
def test_a_key_that_stands_twice_costs_its_row(row: str, key: str, tmp_path: Path) -> None:
    reason = f"the key `{key}` stands twice in one object"
    good = '{"answer": 1, "c": {"answer": 2}}'
    lines = read(written(tmp_path / "rows.jsonl", f"{good}\n{row}\n{good}"))
    assert lines == [json.loads(good), f"line 2: {reason}", json.loads(good)]
    items = read(written(tmp_path / "rows.json", f"[{good}, {row}, {good}]"))
    assert items == [json.loads(good), reason, json.loads(good)]
    by_id = read(written(tmp_path / "rows.json", f'{{"x": {good}, "y": {row}}}'))
    assert by_id == [{"key": "x", **json.loads(good)}, f"`y`: {reason}"]


def test_an_id_that_stands_twice_costs_both_rows(tmp_path: Path) -> None:
    path = written(tmp_path / "rows.json", '{"1": {"a": 1},\n "2": {"a": 2}, "1": {"a": 3}}')
    assert read(path) == [
        "the id `1` stands 2 times",
        {"key": "2", "a": 2},
        "the id `1` stands 2 times",
    ]


def test_nan_and_infinity_are_read_as_json_reads_them(tmp_path: Path) -> None:
    (row,) = read(written(tmp_path / "rows.jsonl", '{"a": NaN, "b": -Infinity}'))
    assert row["a"] != row["a"]
    assert row["b"] == float("-inf")


def test_a_pointer_of_git_lfs_is_called_that(tmp_path: Path) -> None:
    pointer = "version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 3\n"
    for name in ("rows.json", "rows.jsonl", "rows.csv", "rows.parquet", "rows.tar"):
        with pytest.raises(UserError, match="is a Git LFS pointer, not the file itself"):
            read(written(tmp_path / name, pointer))


def test_one_object_a_file(tmp_path: Path) -> None:
    """SROIE: `data/key/000.json` beside `data/img/000.jpg`."""
    folder = tmp_path / "data" / "key"
    for name in ("010", "002", "a.b"):
        written(folder / f"{name}.json", {"company": name})
    written(folder / "003.json", '{"company": "a", "company": "b"}')
    written(folder / "004.json", '{"company": ')
    written(folder / "005.json", '[{"company": "a"}]')
    written(folder / "006.json", '{"file": "own"}')
    written(folder / ".hidden.json", '{"company": "hidden"}')
    written(folder / "readme.txt", "no")
    (folder / "007.json.gz").write_bytes(gzip.compress(b'{"company": "packed"}'))
    found: list[Any] = []
    for file in object_files(files_below(folder)):
        try:
            found.append(object_row(file, folder))
        except DamagedRecord as error:
            found.append(str(error))
    assert found[0] == {"company": "002", "file": "002"}
    assert found[1] == "003.json: the key `company` stands twice in one object"
    assert found[2].startswith("004.json: Expecting value")
    assert found[3].startswith("005.json: expected an object, got [")
    assert found[4] == "006.json has a column `file` of its own: rename it"
    assert found[5:] == [
        {"company": "packed", "file": "007"},
        {"company": "010", "file": "010"},
        {"company": "a.b", "file": "a.b"},
    ]
    first = object_row(object_files(files_below(folder))[0], tmp_path)
    assert first == {"company": "002", "file": "data/key/002"}
