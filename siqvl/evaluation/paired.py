"""Compare two players question by question, within one report or across two."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import numpy as np
import pyarrow.compute as pc

from siqvl.errors import UserError
from siqvl.evaluation.scoring.intervals import paired_interval
from siqvl.evaluation.scoring.predictions import read_predictions
from siqvl.recipe import Player


class Comparison(NamedTuple):
    """Two players on the same questions; means and differences are shares in [0, 1]."""

    n: int  # questions
    mean_a: float
    mean_b: float
    difference: float  # mean of score a - score b
    interval: tuple[float, float]  # 95 % paired bootstrap interval of `difference`


def compare(
    report_a: Path,
    report_b: Path,
    benchmark: str,
    other_benchmark: str | None = None,
    player: Player = "picture",
    other_player: Player = "picture",
    seed: int = 0,
) -> Comparison:
    """Measures how much better `player` of `report_a` answers than `other_player` of `report_b`.

    Args:
        report_a, report_b: EvalReport directories, which may be the same one.
        benchmark: what `player` answered.
        other_benchmark: what `other_player` answered; None: the same. Equal ids in two benchmarks
            are the same question, asked otherwise.

    Raises:
        UserError: a report lacks the player's answers, or the two answered different questions.
    """
    a = _scores(report_a, benchmark, player)
    b = _scores(report_b, other_benchmark or benchmark, other_player)
    if a.keys() != b.keys():
        raise UserError(
            f"{_side(report_a, benchmark)} and {_side(report_b, other_benchmark or benchmark)} are "
            f"about different questions: {len(a.keys() - b.keys()):,} are only in the first, "
            f"{len(b.keys() - a.keys()):,} only in the second, {len(a.keys() & b.keys()):,} in "
            "both; evaluate both on the same prepared benchmarks"
        )
    scores: np.ndarray = np.array(list(a.values()))
    rival: np.ndarray = np.array([b[question] for question in a])
    return Comparison(
        n=len(scores),
        mean_a=float(scores.mean()),
        mean_b=float(rival.mean()),
        difference=float((scores - rival).mean()),
        interval=paired_interval(scores, rival, seed=seed),
    )


def _scores(report: Path, benchmark: str, player: Player) -> dict[str, float]:
    """Score by question id, in the benchmark's order."""
    table = read_predictions(report, benchmark)
    table = table.filter(pc.equal(table["player"], player)).select(["id", "score"])
    if len(table) == 0:
        raise UserError(
            f"{report} has no answers of player `{player}` to benchmark `{benchmark}`: evaluate "
            "the checkpoint with a recipe that asks for them"
        )
    scores = dict(zip(table["id"].to_pylist(), table["score"].to_pylist(), strict=True))
    if len(scores) < len(table):
        raise UserError(
            f"{_side(report, benchmark)} holds {len(table) - len(scores):,} questions under an id "
            "that another one has; questions cannot be paired"
        )
    return scores


def _side(report: Path, benchmark: str) -> str:
    return f"benchmark `{benchmark}` of {report}"
