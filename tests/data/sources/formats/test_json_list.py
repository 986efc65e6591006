"""A list is read item by item as `json` reads it whole, wherever the chunks of its text end."""

import gzip
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from siqvl.data.sources.formats import json_list
from siqvl.data.sources.formats.json_list import list_items
from siqvl.data.sources.formats.table_file import unread_records
from siqvl.errors import UserError

LEAVES = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text()
VALUES = st.recursive(
    LEAVES, lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner), max_leaves=8
)


def items(file: Path) -> list[Any]:
    return [item for item, _ in list_items(file)]


@settings(
    max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    rows=st.lists(VALUES, max_size=6),
    chunk=st.integers(1, 40),
    indent=st.none() | st.integers(0, 2),
    is_ascii=st.booleans(),
    encoding=st.sampled_from(["utf-8", "utf-8-sig", "utf-16", "utf-32"]),
)
def test_any_list_cut_anywhere(
    rows: list[Any],
    chunk: int,
    indent: int | None,
    is_ascii: bool,
    encoding: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(json_list, "CHUNK", chunk)
    file = tmp_path / "rows.json"
    text = json.dumps(rows, indent=indent, ensure_ascii=is_ascii)
    file.write_bytes(f" {text}\n".encode(encoding, "replace"))
    assert items(file) == json.loads(text.encode(encoding, "replace").decode(encoding))


@pytest.mark.parametrize("chunk", [1, 5, 2**20])
@pytest.mark.parametrize(
    "text",
    ['[{"a": 1}', '[{"a": 1},', '[{"a": 1},]', '[{"a": 1} {"a": 2}]', "[1, 2]]", "[1, x]", "["],
)
def test_what_is_no_list_is_refused_with_its_place(
    text: str, chunk: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(json_list, "CHUNK", chunk)
    file = tmp_path / "rows.json"
    file.write_text(text)
    with pytest.raises(json.JSONDecodeError) as expected:
        json.loads(text)
    with pytest.raises(UserError) as found:
        list(unread_records(file))
    assert str(expected.value) in found.value.message


def test_a_number_goes_on_in_the_next_chunk(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(json_list, "CHUNK", 3)
    file = tmp_path / "rows.json"
    file.write_text("[12345, 1e5, -0.5]")
    assert items(file) == [12345, 1e5, -0.5]


def test_the_first_rows_are_there_before_the_rest_is_read(tmp_path: Path) -> None:
    """The end is not even JSON: nothing of it was looked at."""
    file = tmp_path / "rows.json.gz"
    rows = ",".join(json.dumps({"n": n, "text": "x" * 200}) for n in range(20_000))
    file.write_bytes(gzip.compress(f"[{rows}, no end".encode(), 1))
    unread = unread_records(file)
    assert [next(unread)()["n"] for _ in range(100)] == [*range(100)]
    with pytest.raises(UserError, match="Expecting value"):
        list(unread)
