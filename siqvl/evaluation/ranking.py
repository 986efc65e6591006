"""Several reports on the same benchmarks, ranked, each beside the best."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

from siqvl.evaluation.paired import compare
from siqvl.evaluation.scoring.scores import Score, Scores, between
from siqvl.number_formats import percent
from siqvl.text_table import text_table

COLUMNS = ("benchmark", "point", "n", "score", "95 % interval", "behind the best", "95 % interval")


class Ranked(NamedTuple):
    """One report on one benchmark; shares in [0, 1]."""

    benchmark: str
    name: str
    questions: int
    judged: str  # method and scorer
    score: float
    interval: str
    behind: float  # the best's score less this one's
    behind_interval: tuple[float, float]  # 95 %, paired by question


def rank(reports: dict[str, Path]) -> list[Ranked]:
    """Ranks some reports on every benchmark, the best first; equal scores in the order given.

    Raises:
        UserError: reports are about different questions.
    """
    entries: dict[str, list[tuple[str, Score]]] = {}
    for name, report in reports.items():
        for score in Scores.read(report).scores:
            entries.setdefault(score.benchmark, []).append((name, score))
    found = []
    for benchmark, entered in entries.items():
        entered.sort(key=lambda entry: -entry[1].players["picture"].mean)
        best, _ = entered[0]
        for name, score in entered:
            result = score.players["picture"]
            pair = compare(reports[best], reports[name], benchmark)
            found.append(
                Ranked(
                    benchmark=benchmark,
                    name=name,
                    questions=score.questions,
                    judged=score.judged,
                    score=result.mean,
                    interval=between(result),
                    behind=pair.difference,
                    behind_interval=pair.interval,
                )
            )
    return found


def ranking_table(ranking: list[Ranked]) -> str:
    """Writes the ranking for a terminal, differences in points; below it, how all were scored."""
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
    notes = dict.fromkeys(f"{each.benchmark}: {each.judged}" for each in ranking)
    return "\n".join([*text_table(rows, left=(0, 1)), "", *notes])
