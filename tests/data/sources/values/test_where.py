"""`where` and `sample`: which rows of a table are taken, compared with plain Python."""

import csv
import json
import random
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from siqvl.data import sources
from siqvl.data.preparation.prepare import prepare
from siqvl.data.schema import RowKind
from siqvl.errors import UserError
from siqvl.recipe import DataPrep, Source

RNG = random.Random(5)
ROWS = [
    {
        "question": f"Q{number}?",
        "answer": f"a{number}",
        "level": RNG.choice([1, 2, 3]),
        "type": RNG.choice(["free", "multi_choice", None]),
        "good": RNG.choice([True, False]),
        "about": {"lang": RNG.choice(["en", "de"])},
    }
    for number in range(700)
]
CASES: list[tuple[dict[str, Any], Any]] = [
    ({"type": "free"}, lambda row: row["type"] == "free"),
    ({"level": [1, 3]}, lambda row: row["level"] in (1, 3)),
    ({"type": {"present": True}}, lambda row: row["type"] is not None),
    ({"type": {"present": False}}, lambda row: row["type"] is None),
    ({"good": True, "level": 2}, lambda row: row["good"] and row["level"] == 2),
    ({"about.lang": "de"}, lambda row: row["about"]["lang"] == "de"),
    ({"level": "2"}, lambda row: row["level"] == 2),
]


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("where")
    found = {name: folder / f"rows.{name}" for name in ("jsonl", "parquet", "csv")}
    found["jsonl"].write_text("".join(json.dumps(row) + "\n" for row in ROWS))
    pq.write_table(pa.Table.from_pylist(ROWS), found["parquet"], row_group_size=100)
    with open(found["csv"], "w", newline="") as stream:
        lines = csv.DictWriter(stream, list(ROWS[0]))
        lines.writeheader()
        lines.writerows(row | {"about": json.dumps(row["about"])} for row in ROWS)
    return found


def answers(source: Source) -> list[str]:
    return [row["completion"][0]["content"] for row in sources.rows(source, RowKind.SFT, 0)]


@pytest.mark.parametrize("name", ["jsonl", "parquet", "csv"])
@pytest.mark.parametrize(("where", "holds"), CASES)
def test_rows_are_those_that_plain_python_finds(
    where: dict[str, Any], holds: Any, name: str, files: dict[str, Path]
) -> None:
    source = Source(kind="table", path=str(files[name]), where=where)
    sources.check(source, RowKind.SFT)
    right = [row["answer"] for row in ROWS if holds(row)]
    assert 0 < len(right) < len(ROWS)
    assert answers(source) == right
    assert sources.size(source, RowKind.SFT, 0) == len(right)
    some = source.model_copy(update={"skip": 3, "max_samples": 20})
    assert answers(some) == right[3:23]


def test_prepared_rows_are_those_too(files: dict[str, Path], tmp_path: Path) -> None:
    source = Source(kind="table", path=str(files["parquet"]), where={"level": 2})
    manifest = prepare([source], RowKind.SFT, tmp_path / "a", data=DataPrep(processes=2), seed=0)
    assert manifest.rows == sum(row["level"] == 2 for row in ROWS)


def test_a_random_choice_is_seeded_and_in_published_order(files: dict[str, Path]) -> None:
    first = Source(kind="table", path=str(files["jsonl"]), max_samples=50)
    chosen = first.model_copy(update={"sample": "random"})
    rest = chosen.model_copy(update={"skip": 50, "max_samples": None})
    every = [row["answer"] for row in ROWS]
    assert answers(first) == every[:50]
    assert answers(chosen) == answers(chosen) != every[:50]
    assert answers(chosen) == [one for one in every if one in set(answers(chosen))]
    assert sorted(answers(chosen) + answers(rest)) == sorted(every)
    assert sources.size(rest, RowKind.SFT, 0) == 650
    pieces = [
        row["completion"][0]["content"]
        for row in sources.rows(chosen, RowKind.SFT, 0, start=10, stop=30)
    ]
    assert pieces == answers(chosen)[10:30]


def test_the_first_of_what_is_chosen_at_random_otherwise() -> None:
    shapes = Source(kind="shapes", subsets=["vqa"], max_samples=5, skip=2, sample="first")
    every = Source(kind="shapes", subsets=["vqa"], max_samples=7)
    assert sources.size(shapes, RowKind.SFT, 0) == 5
    assert len(list(sources.rows(every, RowKind.SFT, 0))) == 7


def test_a_stream_of_unknown_size_has_no_random_choice(
    files: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    source = Source(kind="table", path=str(files["jsonl"]), max_samples=5, sample="random")
    monkeypatch.setattr("siqvl.data.sources.reading.published.known_size", lambda source: None)
    with pytest.raises(UserError, match="`sample: random` cannot choose"):
        answers(source)


@pytest.mark.parametrize("written", ["true", "True", "TRUE"])
def test_a_truth_in_a_text_may_be_written_in_any_case(written: str, tmp_path: Path) -> None:
    """JSON, Python, and R or a spreadsheet."""
    file = tmp_path / "rows.csv"
    file.write_text(f"question,answer,good\nQ?,yes,{written}\nQ?,no,false\nQ?,one,1\n")
    assert answers(Source(kind="table", path=str(file), where={"good": True})) == ["yes"]
