"""Which files of a folder are read: none of its tables is lost without a word."""

import gzip
import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from siqvl.data import sources
from siqvl.data.schema import RowKind
from siqvl.errors import UserError
from siqvl.recipe import Source
from tests.data.sources.published_files import read, texts


def put(file: Path, answer: str) -> Path:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps({"question": "What?", "answer": answer}) + "\n", encoding="utf-8")
    return file


def answers(root: Path, **keys: Any) -> list[str]:
    rows = read(Source(kind="table", path=str(root), **keys), RowKind.SFT)
    return sorted(texts(row, "completion")[0] for row in rows)


@pytest.mark.parametrize(
    "names",
    [
        "data/train.jsonl extra/train.jsonl",
        "train/rows.jsonl extra/train/rows.jsonl",
        "train/rows.jsonl extra/train/rows.jsonl more/train/rows.jsonl",
    ],
)
def test_a_folder_that_is_no_subset_is_read_beside_those_that_would_be(
    tmp_path: Path, names: str
) -> None:
    for name in names.split():
        put(tmp_path / name, name)
    assert answers(tmp_path) == sorted(names.split())
    with pytest.raises(UserError, match="unknown subset `extra`; it has none"):
        answers(tmp_path, subsets=["extra"])


def test_a_subset_that_is_named_has_the_split(tmp_path: Path) -> None:
    for name in ("art/train.jsonl", "art/test.jsonl", "maths/train.jsonl"):
        put(tmp_path / name, name)
    assert answers(tmp_path, subsets=["art", "maths"]) == ["art/train.jsonl", "maths/train.jsonl"]
    with pytest.raises(UserError, match="subset `maths` has no split `test`"):
        answers(tmp_path, subsets=["art", "maths"], split="test")


def test_endings_in_any_case(tmp_path: Path) -> None:
    content = "question,answer\nWhat?,%s\n"
    (tmp_path / "a.CSV").write_text(content % "csv", encoding="utf-8")
    (tmp_path / "b.Tsv").write_text((content % "tsv").replace(",", "\t"), encoding="utf-8")
    put(tmp_path / "c.JSONL", "jsonl")
    (tmp_path / "d.JSON").write_text('[{"question": "What?", "answer": "json"}]', encoding="utf-8")
    (tmp_path / "e.CSV.GZ").write_bytes(gzip.compress((content % "gz").encode()))
    pq.write_table(pa.table({"question": ["What?"], "answer": ["parquet"]}), tmp_path / "f.PARQUET")
    assert answers(tmp_path) == ["csv", "gz", "json", "jsonl", "parquet", "tsv"]
    for file in tmp_path.iterdir():
        assert answers(file) == [file.name.lower().removeprefix("e.csv.").split(".")[-1]]
        (row,) = read(Source(kind="table", path=str(file)), RowKind.SFT)
        assert row["source"] == file.name[0]


def test_folders_that_are_linked_in_are_read_once(tmp_path: Path) -> None:
    root = tmp_path / "set"
    put(root / "a.jsonl", "own")
    put(root / "v2" / "b.jsonl", "v2")
    put(tmp_path / "elsewhere" / "rows" / "c.jsonl", "linked")
    (root / "linked").symlink_to(tmp_path / "elsewhere")
    (root / "latest").symlink_to(root / "v2")
    (root / "v2" / "up").symlink_to(root)
    (root / "d.jsonl").symlink_to(put(tmp_path / "x.jsonl", "linked file"))
    assert answers(root) == ["linked", "linked file", "own", "v2"]


def test_a_table_that_is_a_link_to_nowhere_is_named(tmp_path: Path) -> None:
    put(tmp_path / "a.jsonl", "own")
    (tmp_path / "b.jsonl").symlink_to(tmp_path / "blobs" / "b")
    with pytest.raises(
        UserError, match=r"b\.jsonl is a link to .*blobs/b, where nothing is: fetch"
    ):
        answers(tmp_path)


@pytest.mark.parametrize("name", ["b.csv", "b.tsv", "b.jsonl.gz", "b.parquet"])
def test_a_table_without_bytes_is_no_table_without_rows(tmp_path: Path, name: str) -> None:
    put(tmp_path / "a.jsonl", "own")
    (tmp_path / name).touch()
    with pytest.raises(
        UserError, match=f"{name} cannot be read: it is empty, without a byte; replace it"
    ):
        answers(tmp_path)
    (tmp_path / name).unlink()
    (tmp_path / "b.jsonl").touch()  # so JSON lines of no rows are written
    assert answers(tmp_path) == ["own"]


def test_each_table_with_a_header_has_the_columns_that_are_named(tmp_path: Path) -> None:
    """Else its rows come without a picture, or, with `where`, not at all."""
    (tmp_path / "a.csv").write_text("photo,question,answer\n0.png,What?,a\n", encoding="utf-8")
    (tmp_path / "b.csv").write_text("image,question,answer\n0.png,What?,b\n", encoding="utf-8")
    for keys in ({"columns": {"image": "photo"}}, {"where": {"photo": "0.png"}}):
        with pytest.raises(UserError, match=r"b\.csv has no column `photo` for `(image|where)`"):
            sources.check(Source(kind="table", path=str(tmp_path), **keys), RowKind.SFT)
    pq.write_table(pa.table({"question": ["What?"], "answer": ["b"]}), tmp_path / "b.parquet")
    (tmp_path / "b.csv").unlink()
    with pytest.raises(UserError, match=r"b\.parquet has no column `photo`"):
        sources.check(Source(kind="table", path=str(tmp_path), columns={"image": "photo"}),
                      RowKind.SFT)  # fmt: skip
    (tmp_path / "b.parquet").unlink()
    put(tmp_path / "b.jsonl", "text only")  # JSON leaves out what is empty
    assert answers(tmp_path, columns={"image": "photo"}) == ["a", "text only"]


def test_columns_of_an_image_folder_are_those_that_are_read(tmp_path: Path) -> None:
    for part in ("one", "two"):
        (tmp_path / part).mkdir()
        (tmp_path / part / "metadata.csv").write_text(
            "file_name,question,answer\n0.png,What?,a\n", encoding="utf-8"
        )
    sources.check(Source(kind="table", path=str(tmp_path), columns={"image": "image"}), RowKind.SFT)


def test_rows_that_are_all_bad_are_not_called_none(tmp_path: Path) -> None:
    file = tmp_path / "rows.csv"
    file.write_bytes("question,answer\nWhat?,café\n".encode("latin-1"))
    with pytest.raises(UserError, match=r"none in its first rows, which are bad: line 2"):
        sources.check(Source(kind="table", path=str(file)), RowKind.SFT)


def test_two_columns_of_one_name_in_parquet_are_refused(tmp_path: Path) -> None:
    columns = [pa.array(["What?"]), pa.array(["a"]), pa.array(["b"])]
    table = pa.Table.from_arrays(columns, names=["question", "answer", "answer"])
    pq.write_table(table, tmp_path / "rows.parquet")
    with pytest.raises(UserError, match=r"rows\.parquet has two columns `answer`; rename one"):
        answers(tmp_path)
