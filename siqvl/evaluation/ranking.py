"""Several reports on the same benchmarks, ranked, each beside the best."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

from siqvl.evaluation.paired import compare
from siqvl.evaluation.scoring.scores import Scores, between
from siqvl.number_formats import percent
from siqvl.text_table import text_table

COLUMNS = ("benchmark", "point", "n", "score", "95 % interval", "behind the best", "95 % interval")


class Ranked(NamedTuple):
    """One report on one benchmark; shares in [0, 1]."""

    benchmark: str
    name: str
    questions: int
    score: float
    interval: str
    behind: float  # the best's score less this one's
    behind_interval: tuple[float, float]  # 95 %, paired by question


def rank(reports: dict[str, Path]) -> list[Ranked]:
    """Every benchmark of some reports, the best first; equal scores in the order given.

    Raises:
        UserError: reports are about different questions.
    """
    scores = {name: Scores.read(report) for name, report in reports.items()}
    benchmarks = dict.fromkeys(
        score.benchmark for report in scores.values() for score in report.scores
    )
    return [ranked for benchmark in benchmarks for ranked in _of(benchmark, reports, scores)]


def _of(benchmark: str, reports: dict[str, Path], scores: dict[str, Scores]) -> list[Ranked]:
    own = {
        name: score
        for name, report in scores.items()
        for score in report.scores
        if score.benchmark == benchmark
    }
    order = sorted(own, key=lambda name: -own[name].players["picture"].mean)
    best = order[0]
    found = []
    for name in order:
        result = own[name].players["picture"]
        pair = compare(reports[best], reports[name], benchmark)
        found.append(
            Ranked(
                benchmark=benchmark,
                name=name,
                questions=own[name].questions,
                score=result.mean,
                interval=between(result),
                behind=pair.difference,
                behind_interval=pair.interval,
            )
        )
    return found


def ranking_table(ranking: list[Ranked]) -> str:
    """The ranking for a terminal; differences in points."""
    rows: list[tuple[str, ...]] = [COLUMNS]
    for each in ranking:
        low, high = each.behind_interval
        first = each.behind == 0 and (low, high) == (0, 0)
        rows.append(
            (
                each.benchmark,
                each.name,
                f"{each.questions:,}",
                percent(each.score),
                each.interval,
                "–" if first else f"{100 * each.behind:.1f}",
                "–" if first else f"{100 * low:.1f} … {100 * high:.1f}",
            )
        )
    return "\n".join(text_table(rows, left=(0, 1)))
