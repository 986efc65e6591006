"""Pieces of a source: rows start..stop-1 of the one sequence, its size, and what it comes from."""

import os
from collections.abc import Iterator
from functools import partial
from itertools import count
from pathlib import Path
from typing import Any

import pytest

from siqvl.data import sources
from siqvl.data.schema import Row, RowKind
from siqvl.data.sources.base import Items, Stream
from siqvl.recipe import Source


class Recorded:
    """Numbered rows in one of three forms; `read` lists the rows that were built."""

    kinds = frozenset(RowKind)

    def __init__(self, form: str, size: int = 100) -> None:
        self.form, self.size, self.read = form, size, list[int]()

    def check(self, source: Source, kind: RowKind) -> None:
        pass

    def _row(self, number: int) -> Row:
        self.read.append(number)
        return {"id": number}

    def rows(self, source: Source, kind: RowKind, seed: int) -> Items | Stream | Iterator[Row]:
        if self.form == "items":
            return Items(self.size, self._row)
        if self.form == "stream":
            return Stream(partial(self._row, number) for number in range(self.size))
        return (self._row(number) for number in range(self.size))


@pytest.fixture(params=["items", "stream", "iterator"])
def adapter(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Recorded:
    made = Recorded(request.param)
    monkeypatch.setitem(sources.SOURCES, "recorded", made)
    return made


@pytest.mark.parametrize("max_samples", [None, 7, 64, 1000])
@pytest.mark.parametrize("piece", [1, 9, 50, 200])
def test_pieces_put_together_are_the_whole(
    adapter: Recorded, max_samples: int | None, piece: int
) -> None:
    source = Source(kind="recorded", max_samples=max_samples)
    whole = list(sources.rows(source, RowKind.SFT, 3))
    assert len(whole) == min(max_samples or 100, 100)
    pieces: list[Row] = []
    for start in count(0, piece):
        found = list(sources.rows(source, RowKind.SFT, 3, start=start, stop=start + piece))
        if not found:
            break
        pieces += found
    assert pieces == whole
    assert list(sources.rows(source, RowKind.SFT, 3, start=5)) == whole[5:]


def test_rows_outside_a_piece_are_not_read(adapter: Recorded) -> None:
    found = list(sources.rows(Source(kind="recorded"), RowKind.SFT, 0, start=90, stop=93))
    assert [row["id"] for row in found] == [90, 91, 92]
    if adapter.form != "iterator":  # of a plain iterator there is no way around
        assert adapter.read == [90, 91, 92]


def test_a_piece_past_the_end_is_empty(adapter: Recorded) -> None:
    source = Source(kind="recorded", max_samples=10)
    assert list(sources.rows(source, RowKind.SFT, 0, start=10, stop=20)) == []
    assert list(sources.rows(source, RowKind.SFT, 0, start=200)) == []


def test_sizes(monkeypatch: pytest.MonkeyPatch) -> None:
    for form, known in {"items": 100, "stream": None, "iterator": None}.items():
        monkeypatch.setitem(sources.SOURCES, "recorded", Recorded(form))
        assert sources.size(Source(kind="recorded"), RowKind.SFT, 0) == known
        few = Source(kind="recorded", max_samples=10)
        assert sources.size(few, RowKind.SFT, 0) == (None if known is None else 10)


def test_the_size_of_a_generated_source_is_what_is_asked_of_it() -> None:
    source = Source(kind="shapes", max_samples=50, subsets=["vqa", "reasoning"])
    assert sources.size(source, RowKind.SFT, 0) == 50
    whole = list(sources.rows(source, RowKind.SFT, 0))
    assert [row["id"] for row in sources.rows(source, RowKind.SFT, 0, start=41, stop=44)] == [
        row["id"] for row in whole[41:44]
    ]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "data" / "images").mkdir(parents=True)
    (tmp_path / "data" / "rows.jsonl").write_text("{}\n")
    (tmp_path / "data" / "images" / "a.png").write_bytes(b"a")
    return tmp_path / "data"


def test_the_state_follows_every_file_below_the_path(folder: Path) -> None:
    source = Source(kind="table", path=str(folder))
    seen = [sources.state(source)]
    assert sources.state(source) == seen[0]
    (folder / "images" / "b.png").write_bytes(b"b")
    seen.append(sources.state(source))
    (folder / "images" / "a.png").write_bytes(b"aa")
    seen.append(sources.state(source))
    os.utime(folder / "rows.jsonl", ns=(1, 1))  # the same size, written again
    seen.append(sources.state(source))
    (folder / "images" / "b.png").rename(folder / "images" / "c.png")
    seen.append(sources.state(source))
    assert len(set(seen)) == 5


@pytest.mark.parametrize(
    "changes",
    [
        {"kind": "finevision"},
        {"subsets": ["a"]},
        {"split": "test"},
        {"revision": "abc"},
        {"columns": {"question": "q"}},
        {"max_samples": 3},
        {"min_ratings": {"relevance": 3}},
    ],
)
def test_the_state_follows_what_chooses_rows(folder: Path, changes: dict[str, Any]) -> None:
    fields: dict[str, Any] = {"kind": "table", "path": str(folder)}
    assert sources.state(Source(**fields)) != sources.state(Source(**(fields | changes)))
    assert sources.state(Source(**fields)) == sources.state(Source(**fields, weight=2.0))


def test_the_state_of_a_hub_data_set_is_its_commit(monkeypatch: pytest.MonkeyPatch) -> None:
    import huggingface_hub

    class Info:
        sha = "1"

    def dataset_info(self: Any, path: str, revision: str, timeout: float) -> type[Info]:
        assert (path, revision) == ("org/set", "main")
        return Info

    monkeypatch.setattr(huggingface_hub.HfApi, "dataset_info", dataset_info)
    source = Source(kind="table", path="org/set", revision="main")
    first = sources.state(source)
    Info.sha = "2"
    assert sources.state(source) != first


def test_the_state_of_a_hub_data_set_without_a_hub(monkeypatch: pytest.MonkeyPatch) -> None:
    import huggingface_hub

    class NameNotResolved(Exception):
        """As that of an HTTP library: no OSError."""

    def dataset_info(self: Any, path: str, revision: str, timeout: float) -> None:
        raise NameNotResolved(path)

    monkeypatch.setattr(huggingface_hub.HfApi, "dataset_info", dataset_info)
    source = Source(kind="table", path="org/set")
    assert sources.state(source) == sources.state(source)
    assert sources.state(source) != sources.state(source.model_copy(update={"path": "org/other"}))


def test_links_in_a_circle_end(folder: Path) -> None:
    source = Source(kind="table", path=str(folder))
    (folder / "images" / "round").symlink_to(folder)
    (folder / "images" / "nowhere").symlink_to(folder / "none")
    assert sources.state(source) == sources.state(source)


@pytest.mark.parametrize("kind", ["recorded", "shapes"])
def test_what_one_source_skips_another_one_takes(adapter: Recorded, kind: str) -> None:
    """Both of rows that can be had in any order, and of a stream."""
    first = Source(kind=kind, max_samples=30)
    second = Source(kind=kind, skip=30, max_samples=40)
    third = Source(kind=kind, skip=70, max_samples=30)
    ids = [
        {row["id"] for row in sources.rows(source, RowKind.SFT, 0)}
        for source in (first, second, third)
    ]
    assert [len(found) for found in ids] == [30, 40, 30]
    assert len(set.union(*ids)) == 100
    assert sources.size(second, RowKind.SFT, 0) in {40, None}  # None: not known unread


def test_skipping_more_rows_than_there_are_leaves_none(adapter: Recorded) -> None:
    source = Source(kind="recorded", skip=1000)
    assert list(sources.rows(source, RowKind.SFT, 0)) == []
    assert sources.size(source, RowKind.SFT, 0) in {0, None}
