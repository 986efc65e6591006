"""Prepare a recipe's benchmarks: one directory of rows each, with the floors beside them."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from siqvl.data import sources
from siqvl.data.prepare import prepare
from siqvl.data.schema import Row, RowKind
from siqvl.data.shards import load_prepared
from siqvl.errors import UserError
from siqvl.evaluation.floors import Floors, floors
from siqvl.recipe import Benchmark, Recipe, Source

FLOORS = "floors.json"


def check_benchmarks(recipe: Recipe) -> None:
    """Judge every benchmark's sources before any work; raises UserError."""
    for benchmark in recipe.evaluation.benchmarks:
        sources.check(benchmark.source, RowKind.EVALUATION)
        if benchmark.training is not None:
            sources.check(benchmark.training, RowKind.EVALUATION)


def prepare_benchmarks(recipe: Recipe, out: Path) -> None:
    """Write `out/<benchmark>/` for every benchmark of the recipe."""
    check_benchmarks(recipe)
    for benchmark in recipe.evaluation.benchmarks:
        directory = out / benchmark.name
        prepare(
            [benchmark.source], RowKind.EVALUATION, directory, data=recipe.data, seed=recipe.seed
        )
        rows, _ = load_prepared(directory, RowKind.EVALUATION)
        training = _training_rows(benchmark.training, recipe) if benchmark.training else None
        found = floors(rows.select_columns(["question", "answers", "choices"]).to_list(), training)
        unfinished = directory / f".{FLOORS}"
        unfinished.write_text(found.model_dump_json(indent=2) + "\n", encoding="utf-8")
        unfinished.rename(directory / FLOORS)  # a killed run leaves no half of it


def _training_rows(source: Source, recipe: Recipe) -> Iterator[Row]:
    """Questions with an answer; a published row without both teaches a guesser nothing."""
    for row in sources.rows(source, RowKind.EVALUATION, recipe.seed):
        if row.get("question") and row.get("answers"):
            yield row


def read_floors(data: Path, benchmark: Benchmark) -> Floors:
    """Floors that `prepare_benchmarks` wrote.

    Raises:
        UserError: the benchmark was not prepared there.
    """
    path = data / benchmark.name / FLOORS
    if not path.is_file():
        raise UserError(
            f"{data} holds no benchmark `{benchmark.name}`: prepare it with data_prep --stage "
            "evaluation and the same recipe"
        )
    return Floors.model_validate_json(path.read_text(encoding="utf-8"))
