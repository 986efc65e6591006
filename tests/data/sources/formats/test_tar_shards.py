"""WebDataset shards: the rows that `datasets` reads, and nothing that is lost without a word."""

import gzip
import io
import json
import tarfile
from pathlib import Path
from typing import Any

import datasets
import pytest

from siqvl.data import sources
from siqvl.data.schema import RowKind
from siqvl.data.sources.formats import tar_shards
from siqvl.errors import UserError
from siqvl.recipe import Source
from tests.data.made_pictures import picture
from tests.data.sources import published_files
from tests.data.sources.formats import read_rows

Members = list[tuple[str, bytes | tarfile.TarInfo]]


def packed(members: Members) -> bytes:
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w") as archive:
        for name, content in members:
            info = content if isinstance(content, tarfile.TarInfo) else tarfile.TarInfo(name)
            data = b"" if isinstance(content, tarfile.TarInfo) else content
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    return stream.getvalue()


def written(path: Path, content: bytes) -> Path:
    path.write_bytes(gzip.compress(content) if path.suffix == ".gz" else content)
    return path


def read(path: Path) -> list[Any]:
    return read_rows.read(path, backwards=True)


def refused(path: Path) -> str:
    with pytest.raises(UserError) as error:
        read(path)
    return error.value.message


SHARD: Members = [
    member
    for number in range(7)
    for member in [
        (f"./part.{number % 2}/{number:03}.JPG", picture(f"#00000{number}")),
        (
            f"./part.{number % 2}/{number:03}.json",
            json.dumps({"question": f"What, {number}?", "answer": "ä"}).encode(),
        ),
        (f"./part.{number % 2}/{number:03}.txt", f"caption ä {number}".encode()),
        (f"./part.{number % 2}/{number:03}.cls", f"{number}\n".encode()),
        (f"./part.{number % 2}/{number:03}.seg.png", picture("blue")),
        (f"./part.{number % 2}/.hidden.txt", b"no"),
        ("README", b"a name without a dot"),
    ]
]


@pytest.mark.parametrize("name", ["train-000.tar", "train-000.tar.gz"])
def test_rows_are_those_of_datasets(name: str, tmp_path: Path) -> None:
    path = written(tmp_path / name, packed(SHARD))
    loaded = datasets.load_dataset(
        "webdataset", data_files=str(path), split="train", streaming=True
    ).decode(False)
    expected = []
    for row in loaded:
        row.pop("__url__")
        row["JPG"], row["seg.png"] = row["JPG"]["bytes"], row["seg.png"]["bytes"]
        expected.append(row)
    found = read(path)
    assert len(found) == len(expected) == 7
    assert [{key: row[key] for key in expected[0]} for row in found] == expected
    # the keys of the object are columns too
    assert {*found[0]} - {*expected[0]} == {"question", "answer"}


@pytest.mark.parametrize("name", ["train-000.tar", "train-000.tar.gz"])
def test_a_source_of_shards(name: str, tmp_path: Path) -> None:
    written(tmp_path / name, packed(SHARD))
    source = Source(kind="table", path=str(tmp_path), columns={"image": "JPG"})
    sources.check(source, RowKind.SFT)
    rows = [*sources.rows(source, RowKind.SFT, 0)]
    assert [row["images"] for row in rows] == [[picture(f"#00000{n}")] for n in range(7)]
    assert [row["prompt"][0]["content"] for row in rows] == [f"What, {n}?" for n in range(7)]
    assert sources.size(source, RowKind.SFT, 0) == 7


def test_an_archive_of_pictures_beside_a_table_is_no_table(tmp_path: Path) -> None:
    written(tmp_path / "images.tar", packed([("a.png", picture())]))
    (tmp_path / "rows.csv").write_text("question,answer\nWhat?,this\n")
    source = Source(kind="table", path=str(tmp_path))
    sources.check(source, RowKind.SFT)
    assert len([*sources.rows(source, RowKind.SFT, 0)]) == 1


def test_columns_of_a_member_win_over_keys_of_an_object(tmp_path: Path) -> None:
    members: Members = [("a.json", b'{"txt": "object", "b": 1}'), ("a.txt", b"member")]
    (row,) = read(written(tmp_path / "rows.tar", packed(members)))
    assert row == {"json": {"txt": "object", "b": 1}, "b": 1, "txt": "member", "__key__": "a"}


@pytest.mark.parametrize(
    ("members", "reason"),
    [
        ([("b.json", b"{")], "b: `json`: Expecting property name"),
        ([("b.json", b'{"a": 1, "a": 2}')], "b: `json`: the key `a` stands twice"),
        ([("b.txt", b"\xe9")], "b: `txt`: 'utf-8' codec can't decode byte 0xe9"),
        ([("b.cls", b"one")], "b: `cls`: invalid literal for int"),
        ([("b.txt", b"1"), ("b.txt", b"2")], "b: it has two members `txt`"),
    ],
)
def test_what_is_damaged_costs_one_row(members: Members, reason: str, tmp_path: Path) -> None:
    path = tmp_path / "rows.tar"
    written(path, packed([("a.txt", b"a"), *members, ("c.txt", b"c")]))
    found = read(path)
    assert [row["txt"] for row in (found[0], found[2])] == ["a", "c"]
    assert found[1].startswith(reason)


def link(name: str, kind: bytes = tarfile.SYMTYPE) -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.type, info.linkname = kind, "a.png"
    return info


@pytest.mark.parametrize("kind", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.FIFOTYPE])
def test_links_and_devices_are_not_followed(kind: bytes, tmp_path: Path) -> None:
    """Alone they are no row; a row that has one has lost something, and is told."""
    members: Members = [
        ("a.png", picture()),
        ("alone.png", link("alone.png", kind)),
        ("b.png", link("b.png", kind)),
        ("b.txt", b"b"),
    ]
    found = read(written(tmp_path / "rows.tar", packed(members)))
    assert found == [
        {"png": picture(), "__key__": "a"},
        "b: `png` is no plain file, and not read",
    ]


def test_names_that_lead_elsewhere_are_only_names(tmp_path: Path) -> None:
    names = ["../out.txt", "/abs.txt", "folder/../up.txt"]
    path = written(tmp_path / "rows.tar", packed([(name, name.encode()) for name in names]))
    assert [row["txt"] for row in read(path)] == names
    assert [file.name for file in tmp_path.rglob("*")] == ["rows.tar"]
    assert not (tmp_path.parent / "out.txt").exists()


def test_members_of_a_row_that_lie_apart_are_named(tmp_path: Path) -> None:
    members: Members = [("a.txt", b"1"), ("b.txt", b"1"), ("a.png", picture())]
    message = refused(written(tmp_path / "rows.tar", packed(members)))
    assert "the members of `a` do not follow one another" in message


def test_a_member_over_the_limit_is_not_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tar_shards, "LARGEST", 1_000)
    members: Members = [("a.txt", b"1"), ("b.txt", b"x" * 1_001), ("c.txt", b"x" * 1_000)]
    for name in ("rows.tar", "rows.tar.gz"):
        found = read(written(tmp_path / name, packed(members)))
        assert found[1] == "b: `txt` has 1,001 bytes, 1,000 at most are read"
        assert found[2]["txt"] == "x" * 1_000


WHOLE = packed([(f"{n}.txt", b"x" * 700) for n in range(20)])


@pytest.mark.parametrize("name", ["rows.tar", "rows.tar.gz"])
@pytest.mark.parametrize(
    "content",
    [
        WHOLE[:6_000],
        WHOLE[: 20 * 1_536],
        WHOLE[:6_144] + b"\xff" * 512 + WHOLE[6_656:],
        WHOLE + WHOLE,
        b"no archive",
        b"",
    ],
    ids=["cut in a member", "cut between", "a damaged header", "two in one", "text", "empty"],
)
def test_an_archive_that_is_cut_or_damaged_is_named(
    name: str, content: bytes, tmp_path: Path
) -> None:
    """`tarfile` ends in silence where a header in the middle cannot be read."""
    message = refused(written(tmp_path / name, content))
    assert f"{name} cannot be read: " in message


def test_a_row_whose_picture_is_called_otherwise_does_not_lose_it(tmp_path: Path) -> None:
    """Shards mix JPEG and PNG: `image: jpg` has nothing in every other row."""
    red = picture("red")
    asked = b'{"question": "What?", "answer": "a"}'
    members = [("0.jpg", red), ("0.json", asked), ("1.png", red), ("1.json", asked)]
    members += [("2.json", asked)]
    file = written(tmp_path / "rows.tar", packed(members))
    found = published_files.read(
        Source(kind="table", path=str(file), columns={"image": "jpg"}), RowKind.SFT
    )
    assert [row.get("images") for row in found] == [[red], None, []]
    assert found[1]["damaged"] == (
        "it has no picture in `jpg`, but a member `png` that no field is mapped to: map both, as "
        "in `images: [jpg, png]`"
    )
    both = Source(kind="table", path=str(file), columns={"images": ["jpg", "png"]})
    assert [row["images"] for row in published_files.read(both, RowKind.SFT)] == [[red], [red], []]
