"""Scores of all stages by benchmark and by type of question: `benchmark_scores.html.jinja`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from siqvl.evaluation.score_rows import ScoreRow
from siqvl.evaluation.scoring.scores import Score, Scores
from siqvl.recipe import Stage


class TypeRow(NamedTuple):
    """The questions of one type."""

    name: str
    questions: int
    means: list[float | None]  # of each stage of the table; None of one that did not answer them
    floor: float | None  # the best to be had without looking, at the last stage that answered


class BenchmarkScores(NamedTuple):
    """One benchmark: a row a model, and a row a type of question where it tells types."""

    about: Score  # of the first model, for what is the same of all
    models: list[ScoreRow]
    types: list[TypeRow]


def by_benchmark(
    reports: Sequence[Scores], names: Sequence[str], stages: Sequence[Stage]
) -> list[BenchmarkScores]:
    """Who was scored on each benchmark, in the order of `names`; none that nobody was scored on.

    Args:
        stages: those that have a column among the types of question.
    """
    found: dict[str, list[tuple[Scores, Score]]] = {name: [] for name in names}
    for report in reports:
        for score in report.scores:
            if score.benchmark in found:
                found[score.benchmark].append((report, score))
    return [
        BenchmarkScores(
            about=models[0][1],
            models=[
                ScoreRow(
                    *(report.title, score.questions, score.players, bool(report.control)),
                    figures=score.figures_text,
                )
                for report, score in models
            ],
            types=_type_rows(models, stages),
        )
        for models in found.values()
        if models
    ]


def _type_rows(models: list[tuple[Scores, Score]], stages: Sequence[Stage]) -> list[TypeRow]:
    """A row a type; controls are not taken apart by type."""
    scores = {report.stage: score for report, score in models if not report.control}
    rows = []
    for name in dict.fromkeys(kind for score in scores.values() for kind in score.types):
        found = {
            stage: ScoreRow(name, score.types[name].questions, score.types[name].players)
            for stage, score in scores.items()
            if name in score.types
        }
        means = [found[stage].own.mean if stage in found else None for stage in stages]
        last = next(found[stage] for stage in reversed(stages) if stage in found)
        rows.append(TypeRow(name, last.questions, means, last.floor))
    return rows
