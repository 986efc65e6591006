"""How a source is laid out, and how little of a large one is read to tell."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from siqvl.data import sources
from siqvl.data.schema import RowKind
from siqvl.data.sources.formats import json_file
from siqvl.data.sources.reading import published, tabular
from siqvl.look import layout
from siqvl.look.first_rows import look_at
from siqvl.look.looked import Looked
from siqvl.look.subjects import of_source
from siqvl.recipe import Source
from tests.data.made_pictures import picture
from tests.look.conftest import clean_rows, sentences, write_table


def look(path: Path, kind: RowKind = RowKind.SFT, rows: int = 2, **keys: Any) -> Looked:
    source = Source.model_validate({"kind": "table", "path": str(path), **keys})
    return look_at(of_source(source, kind, None, None), rows, None)


def test_split_files_and_mapping(tmp_path: Path) -> None:
    rows = [row | {"note": "x", "label": row["answer"]} for row in clean_rows()]
    for name in ("vqa_train.csv", "vqa_val.csv", "more/vqa_train.csv"):
        write_table((tmp_path / name).parent, rows, Path(name).name)
    found = look(tmp_path, columns={"answer": "label"}, constants={"system": "Be brief."})
    assert found.error == ""
    assert found.layout.split == "train"
    assert found.layout.splits == {"train": 2, "validation": 1}
    assert found.layout.files == ["more/vqa_train.csv", "vqa_train.csv"]
    assert found.layout.mapping == {
        "id": "id",
        "image": "image",
        "question": "question",
        "answer": "label",
        "choices": "choices",
        "system": 'always "Be brief."',
    }
    assert found.layout.unused == ["answer", "note"]
    assert found.layout.choices_are == "the text of a choice (as its rows show)"
    assert (found.layout.size, found.layout.is_whole, found.layout.notes) == (24, True, [])


def test_patterns_lists_and_questions_are_shown_as_they_are_written(tmp_path: Path) -> None:
    rows = [
        {"n": number, "A": "red", "B": "blue", "C": "", "color": "red", "shape": "square"}
        for number in range(6)
    ]
    file = write_table(tmp_path, rows)
    found = look(
        file,
        columns={"image": "images/{n}.png"},
        ask={"color": "What color?", "shape": "What shape?"},
    )
    assert found.layout.mapping == {
        "image": "images/{n}.png",
        "question": "as `ask` says",
        "answer": "`color`, `shape`, a row for each",
    }
    assert found.layout.unused == ["A", "B", "C"]
    assert found.layout.size == 6
    assert len(found.rows) == 12


def lines(path: Path, count: int, **columns: Any) -> Path:
    """Rows with options, in whose last one alone the answer is no text of an option."""
    with path.open("w", encoding="utf-8") as stream:
        for number in range(count):
            row = {"question": f"Which, {number}?", "answer": "red", "choices": ["red", "blue"]}
            stream.write(json.dumps(row | columns) + "\n")
    return path


def test_little_of_a_large_file_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The bound is on rows that are parsed; counting lines is quick, and stops after a second."""
    parsed: list[int] = []
    original = json_file._line
    monkeypatch.setattr(json_file, "_line", lambda n, line: parsed.append(n) or original(n, line))
    monkeypatch.setattr(layout, "THROUGH", 500)
    file = lines(tmp_path / "rows.jsonl", 5_000)
    found = look(file, where={"question": "nobody asks this"})
    assert max(parsed) == 500
    assert found.layout.notes == [
        "how answers are read is what the first 500 rows say; preparation looks at all",
        "rows that `where` asks for were looked for in the first 500 rows",
    ] or found.layout.notes == [
        "rows that `where` asks for were looked for in the first 500 rows",
    ]
    assert sentences(found)[0].startswith("There are 0 rows")
    parsed.clear()
    found = look(file)
    assert max(parsed) == 500
    assert len(found.rows) == 200
    assert not found.ended
    assert (found.layout.size, found.layout.is_whole) == (5_000, True)
    assert "the first 500 rows say" in found.layout.notes[0]


def test_a_random_choice_is_not_waited_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tabular, "count_records", lambda file: pytest.fail("all rows are counted"))
    file = lines(tmp_path / "rows.jsonl", 300)
    found = look(file, sample="random", max_samples=250)
    assert [row.id for row in found.rows[:2]] == ["rows/train/0000000", "rows/train/0000001"]


def test_rows_to_skip_are_skipped_where_that_is_soon_done(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = lines(tmp_path / "rows.jsonl", 50)
    assert look(file, skip=40).rows[0].id == "rows/train/0000040"
    monkeypatch.setattr(layout, "THROUGH", 30)
    found = look(file, skip=40)
    assert found.rows[0].id == "rows/train/0000000"
    assert found.layout.notes[-1] == "rows are the very first ones, not those behind `skip: 40`"


def test_first_rows_are_those_that_preparation_reads_first(tmp_path: Path) -> None:
    write_table(tmp_path, clean_rows())
    source = Source(kind="table", path=str(tmp_path), skip=2, max_samples=7)
    all_of_them = list(sources.rows(source, RowKind.SFT, 0))
    first = sources.first_unread(source, RowKind.SFT, 0, rows=5, through=100)
    assert [read() for read in first] == all_of_them[:5]


def test_of_the_hub_a_stream_is_looked_at(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A local folder is read as a repository of the hub is, by `datasets`."""
    import pyarrow as pa

    from tests.data.sources.published_files import IMAGE_TYPE, write_parquet

    for module in (tabular, published, layout):
        monkeypatch.setattr(module, "is_local", lambda source: False)
    monkeypatch.setattr("siqvl.data.sources.tables.table.is_local", lambda source: False)
    monkeypatch.setattr(published.TableAdapter, "_download", lambda self, source: None)
    rows = [
        {
            "image": {"bytes": picture(f"#0000{n:02d}"), "path": None},
            "question": f"{n}?",
            "answer": f"a{n}",
            "more": n,
        }
        for n in range(20)
    ]
    types = {"image": IMAGE_TYPE, "question": pa.string(), "answer": pa.string()}
    write_parquet(
        tmp_path / "set" / "data" / "train-00000-of-00001.parquet", rows, **types, more=pa.int64()
    )
    found = look(tmp_path / "set")
    assert (found.error, sentences(found)) == ("", [])
    assert (len(found.good), found.layout.files, found.layout.unused) == (20, [], ["more"])
    assert found.layout.columns[0].stored == 1
    assert found.examples[0].pictures[0].startswith("data:image/png;base64,")


def test_splits_and_files_are_those_of_a_card(tmp_path: Path) -> None:
    """As `datasets` reads a folder whose README names its files."""
    write_table(tmp_path, clean_rows(), "a.csv")
    write_table(tmp_path, clean_rows(), "b.csv")
    (tmp_path / "README.md").write_text(
        "---\nconfigs:\n- config_name: default\n  data_files:\n"
        "  - split: train\n    path: a.csv\n  - split: test\n    path: b.csv\n---\n"
    )
    found = look(tmp_path)
    assert found.error == ""
    assert (found.layout.split, found.layout.splits) == ("train", {"train": 1, "test": 1})
    assert found.layout.files == ["a.csv"]


def test_each_subset_has_its_files(tmp_path: Path) -> None:
    for subset in ("easy", "hard"):
        for split in ("train", "test"):
            write_table(tmp_path / subset, clean_rows(), f"{split}.csv")
    found = look(tmp_path)
    assert found.layout.splits == {"train": 2, "test": 2}
    assert found.layout.files == ["easy/train.csv", "hard/train.csv"]
    assert found.layout.size == 24
