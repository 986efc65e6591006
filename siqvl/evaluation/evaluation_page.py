"""One page about one checkpoint: its scores, by player and type of question, and some answers."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from siqvl.evaluation.score_rows import ScoreRow
from siqvl.evaluation.scoring.scores import OTHERS, Scores
from siqvl.evaluation.shown_answers import Prediction, pick_samples, pictures_of
from siqvl.page.render import render


def write_report(
    report: Scores, answers: Sequence[Prediction], benchmarks: Path, count: int, path: Path
) -> None:
    """Write `report.html`.

    Args:
        answers: what the model answered to all questions with their pictures.
        benchmarks: folder of the prepared benchmarks, for the pictures.
        count: questions that the page shows with their pictures.
    """
    samples = pick_samples([(report, answers)], count)
    page = render(
        "evaluation/evaluation_page.html.jinja",
        report=report,
        players=OTHERS.values(),
        scores=[ScoreRow(one.benchmark, one.questions, one.players) for one in report.scores],
        types={
            score.benchmark: [
                ScoreRow(kind, one.questions, one.players) for kind, one in score.types.items()
            ]
            for score in report.scores
            if score.types
        },
        samples=samples,
        pictures=pictures_of(samples, benchmarks),
    )
    path.write_text(page, encoding="utf-8")
