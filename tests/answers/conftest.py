"""A checkpoint to ask, and small data sets to ask it about."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from siqvl.answers.answer_all import Done, How, answer_all
from siqvl.answers.question_source import questions_of
from siqvl.recipe import Source
from tests.data.made_pictures import picture
from tests.quick import made_once
from tests.small_checkpoint import small_checkpoint

HOW = How(max_new_tokens=6, batch_size=2)
COLORS = ("red", "green", "blue", "purple", "orange")


@pytest.fixture(scope="session")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = made_once(tmp_path_factory, "small-checkpoint", small_checkpoint)
    return folder / "checkpoint"


def write_rows(folder: Path, rows: list[dict[str, Any]], name: str = "asked.jsonl") -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / name
    file.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return file


def write_picture(file: Path, number: int = 0) -> Path:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(picture(COLORS[number % len(COLORS)], size=(24 + number, 16)))
    return file


def asked_rows(folder: Path, count: int = 11) -> list[dict[str, Any]]:
    """Questions with one picture, with two and with none, of unlike lengths."""
    rows = []
    for number in range(count):
        names = [f"images/{number}.png", "images/shared.png"][: number % 3]
        for name in names:
            write_picture(folder / name, number)
        question = "what color is the square?" + " and the circle?" * (number % 4)
        rows.append({"id": f"q{number}", "images": names, "question": question})
    return rows


@pytest.fixture
def table(tmp_path: Path) -> Path:
    folder = tmp_path / "set"
    return write_rows(folder, asked_rows(folder))


@pytest.fixture
def run(checkpoint: Path, tmp_path: Path) -> Callable[..., Done]:
    """Answers a data set; `out` is the table, below the test's folder."""

    def answer(
        path: Path,
        out: str = "out.jsonl",
        how: How = HOW,
        question: str | None = None,
        shown: int = 0,
        fresh: bool = False,
        **keys: Any,
    ) -> Done:
        source = Source.model_validate({"kind": "table", "path": str(path), **keys})
        asked = questions_of(source, None, question)
        return answer_all(asked, checkpoint, tmp_path / out, how, shown=shown, fresh=fresh)

    return answer


def lines(out: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in out.read_text(encoding="utf-8").splitlines()]
