"""Thousands of mutated rows of the layouts that a recipe can describe, against a plain reader.

The reader below is written from docs/data.md alone: for each published row it says which pictures,
which question and which answer come out of it, that it is left out, or that it is bad.
"""

import ast
import csv
import io
import json
import math
import random
import unicodedata
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from string import ascii_uppercase
from typing import Any

import pytest

from siqvl.data import sources
from siqvl.data.preparation.checks import check_row
from siqvl.data.schema import RowKind
from siqvl.recipe import DataPrep, Source
from tests.data.made_pictures import picture

Record = dict[str, Any]
BAD, LEFT_OUT = "bad", "left out"
NAMES = [f"{a}-{k}" for a in range(3) for k in range(3)]
PICTURES = {f"pics/{name}.png": picture(f"#{i:06x}") for i, name in enumerate(NAMES)}
READINGS = ["text", "letter", "index0", "index1"]
WORDS = ["red", "blue", "a, b", "7", "2", "B", "é", "[0, 1]", "yes"]
GARBAGE: list[Callable[[random.Random], Any]] = [
    lambda rng: None,
    lambda rng: rng.choice(["", "  ", "null", "nan", "None", "[]", "{}", "[1", "]"]),
    lambda rng: rng.choice([0, 1, -3, 2.0, 2.5, 10**30, True, False]),
    lambda rng: rng.choice([float("nan"), float("inf")]),
    lambda rng: rng.choice([[], ["red"], ["red", None], [["red"]], [1, 2], {"A": "x", "B": "y"}]),
    lambda rng: rng.choice([{"text": "red"}, {"B": "x"}, {}, [{"answer": "red"}]]),
    lambda rng: rng.choice(["['a', 'b']", '["a", "b"]', "['a' 'b']", "(1, 2)", "x" * 3_000]),
    lambda rng: rng.choice(["e\u0301", "../0-0", "0-0", "/etc/hosts", "a\0b", "0-0.png"]),
]


class Bad(Exception):
    """The plain reader finds that a row is bad."""


def text(value: Any) -> str:
    if isinstance(value, float) and math.isnan(value):
        return ""
    if value is None or isinstance(value, str):
        return (value or "").strip()
    if isinstance(value, float) and value == int(value) if not _infinite(value) else False:
        return str(int(value))
    if isinstance(value, bool | int | float) and not _infinite(value):
        return str(value)
    raise Bad


def _infinite(value: Any) -> bool:
    return isinstance(value, float) and math.isinf(value)


def options(value: Any) -> list[str]:
    if isinstance(value, str) and value.strip().startswith("["):
        if "' '" in value:  # numpy
            raise Bad
        try:
            value = json.loads(value)
        except ValueError:
            try:
                value = ast.literal_eval(value.strip())
            except (ValueError, SyntaxError):
                raise Bad from None
    if value is None or (isinstance(value, str | float) and text(value) == ""):
        return []
    if isinstance(value, dict):
        found = [key for key, one in value.items() if text(one)]
        if not found or found != list(ascii_uppercase[: len(found)]):
            raise Bad
        value = [value[key] for key in found]
    if not isinstance(value, list):
        raise Bad
    texts = [text(one) for one in value]
    if "" in texts:
        raise Bad
    return texts


def meant(answer: str, choices: list[str], reading: str) -> str:
    same = {unicodedata.normalize("NFC", choice): choice for choice in reversed(choices)}
    numbers = {"index0": 0, "index1": 1}
    try:
        if reading == "text":
            return same[unicodedata.normalize("NFC", answer)]
        if reading == "letter":
            return dict(zip(ascii_uppercase, choices, strict=False))[answer.strip("().:").upper()]
        if not (answer.isdecimal() and len(answer) < 4):
            raise Bad
        return dict(enumerate(choices, numbers[reading]))[int(answer)]
    except KeyError:
        raise Bad from None


def asked(question: str, choices: list[str], reading: str) -> str:
    if not choices:
        return question
    if reading != "letter" and not any("," in one or "\n" in one for one in choices):
        return f"{question}\nOptions: {', '.join(choices)}"
    lines = [f"{name}. {one}" for name, one in zip(ascii_uppercase, choices, strict=False)]
    return "\n".join([question, "Options:", *lines])


def shown(name: str) -> list[bytes]:
    """The picture of a pattern pics/{…}.png."""
    if not name:
        return []
    file = f"pics/{name}.png"
    if file not in PICTURES:
        raise Bad
    return [PICTURES[file]]


def plain(record: Record, source: Source, question: Any, answer: Any, number: str = "") -> Any:
    """What one published row becomes, by the rules in docs/data.md."""
    try:
        reading = source.choices_are or "text"
        name = text(record.get("n"))
        images = shown(f"{name}{number}" if name else "")
        choices = options(record.get("c"))
        answers = answer if isinstance(answer, list) else [answer]
        answers = [one for one in map(text, answers) if one]
        if choices:
            answers = [meant(one, choices, reading) for one in answers]
        question = text(question)
        if not question or not answers:
            return BAD
        learnt = Counter(answers).most_common(1)[0][0]
        if "\0" in question + learnt + "".join(choices):
            return BAD
        turns = asked(question, choices, reading), learnt
        return (images, *(unicodedata.normalize("NFC", turn) for turn in turns))
    except Bad:
        return BAD


def of_columns(record: Record, source: Source) -> list[Any]:
    return [plain(record, source, record.get("q"), record.get("a"))]


def of_range(record: Record, source: Source) -> list[Any]:
    return [plain(record, source, record.get("q"), record.get("a"), f"-{k}") for k in range(3)]


def of_ask(record: Record, source: Source) -> list[Any]:
    found = []
    for column, question in source.ask.items():
        value = record.get(column)
        missing = value is None or (isinstance(value, str | float) and _text(value) == "")
        try:
            options(record.get("c")), text(record.get("n"))
            shown(text(record.get("n")))
        except Bad:
            missing = missing and _readable_name(record)
        found.append(LEFT_OUT if missing else plain(record, source, question, value))
    return found


def _readable_name(record: Record) -> bool:
    """A pattern is filled before it is known that nothing is there to be asked."""
    try:
        text(record.get("n"))
    except Bad:
        return False
    return True


def _text(value: Any) -> str:
    try:
        return text(value)
    except Bad:
        return "?"


def of_where(record: Record, source: Source) -> list[Any]:
    value = record.get("level")
    wanted = (value == 1 and value is not True) or (isinstance(value, str) and value.strip() == "1")
    return of_columns(record, source) if wanted or value == "high" else []


LAYOUTS: dict[str, tuple[dict[str, Any], Callable[[Record, Source], list[Any]]]] = {
    "columns": ({"columns": {"question": "q", "answer": "a", "image": "pics/{n}.png"}}, of_columns),
    "range": (
        {"columns": {"question": "q", "answer": "a", "image": "pics/{n}-{0..2}.png"}},
        of_range,
    ),
    "ask": ({"columns": {"image": "pics/{n}.png"}, "ask": {"q": "Q of it?", "a": "A?"}}, of_ask),
    "where": (
        {"columns": {"question": "q", "answer": "a", "image": "pics/{n}.png"}}
        | {"where": {"level": [1, "high"]}},
        of_where,
    ),
}


def published(rng: random.Random, layout: str, reading: str) -> Record:
    choices = rng.sample(WORDS, rng.randint(2, 5))
    at = rng.randrange(len(choices))
    answers = {"text": choices[at], "letter": ascii_uppercase[at], "index0": at, "index1": at + 1}
    record: Record = {"q": f"What, {rng.randrange(10**6)}?", "a": answers[reading], "c": choices}
    record["n"] = rng.randrange(3) if layout == "range" else rng.choice(NAMES)
    record["level"] = rng.choice([1, 2, "high", "low", None, True, "1"])
    if layout == "ask" or rng.random() < 0.2:
        record["c"] = None
    for _ in range(rng.choice([0, 0, 1, 1, 2])):
        name = rng.choice([*record])
        if rng.random() < 0.15:
            del record[name]
        else:
            record[name] = rng.choice(GARBAGE)(rng)
    return record


def written(records: list[Record], ending: str) -> tuple[str, list[Record]]:
    """The text of a file, and its rows as Python's own reader has them."""
    if ending == "csv":
        stream = io.StringIO()
        lines = csv.DictWriter(stream, ["q", "a", "c", "n", "level"])
        lines.writeheader()
        lines.writerows(records)
        return stream.getvalue(), [*csv.DictReader(io.StringIO(stream.getvalue()))]
    made = "".join(json.dumps(record) + "\n" for record in records)
    return made, [json.loads(line) for line in made.splitlines()]


def found(row: Any) -> Any:
    if "left_out" in row:
        return LEFT_OUT
    checked = check_row(row, RowKind.SFT, DataPrep())
    if checked.row is None:
        assert checked.reason != "unexpected content", checked.detail
        return BAD
    turns = checked.row["prompt"][-1]["content"], checked.row["completion"][-1]["content"]
    return (row["images"], *(unicodedata.normalize("NFC", turn) for turn in turns))


def compare(folder: Path, layout: str, ending: str, reading: str, count: int, seed: int) -> Counter:
    for name, data in PICTURES.items():
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_bytes(data)
    rng = random.Random(f"{layout}/{ending}/{reading}/{seed}")
    whole = {"q": "What?", "a": None, "c": None, "n": None, "level": None}
    records = [whole, *(published(rng, layout, reading) for _ in range(count))]
    content, rows = written(records, ending)
    (folder / f"rows.{ending}").write_text(content)
    keys, reader = LAYOUTS[layout]
    columns = keys["columns"] | {"choices": "c"}
    path = str(folder / f"rows.{ending}")
    source = Source(kind="table", path=path, choices_are=reading, **keys | {"columns": columns})
    sources.check(source, RowKind.SFT)
    ours = [found(row) for row in sources.rows(source, RowKind.SFT, 0)]
    theirs = [one for row in rows for one in reader(row, source)]
    assert len(ours) == len(theirs)
    for mine, right in zip(ours, theirs, strict=True):
        assert mine == right
    return Counter(one if isinstance(one, str) else "good" for one in ours)


@pytest.mark.parametrize("ending", ["jsonl", "csv"])
@pytest.mark.parametrize("layout", LAYOUTS)
def test_mutated_rows_are_what_a_plain_reader_says(
    layout: str, ending: str, tmp_path: Path
) -> None:
    for reading in READINGS:
        counts = compare(tmp_path, layout, ending, reading, count=60, seed=0)
        assert counts["good"] > 5
        assert counts[BAD] > 2


@pytest.mark.drill
def test_twenty_thousand_mutated_rows(tmp_path: Path) -> None:
    total: Counter = Counter()
    for layout in LAYOUTS:
        for ending in ("jsonl", "csv"):
            for reading in READINGS:
                total += compare(tmp_path, layout, ending, reading, count=700, seed=1)
    assert total.total() > 20_000
    print(dict(total))
