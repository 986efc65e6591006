"""Whether a new model takes the champion's place, by what both answered to the same questions.

It has to be better: the whole 95 % interval of the paired difference lies above 0, so that a tie
leaves the champion where it is. A first model is compared with the best of those that do not look
at the picture.
"""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import NamedTuple

from siqvl.errors import UserError
from siqvl.evaluation.gates.verdict import PLAYERS
from siqvl.evaluation.paired import Comparison, compare
from siqvl.evaluation.scoring.scores import Score, Scores
from siqvl.number_formats import percent, points, span
from siqvl.recipe import Player

#: What two scores of a benchmark have to share.
COMPARABLE = ("method", "scorer", "data_fingerprint")


class Outcome(NamedTuple):
    """What becomes of the alias `champion`."""

    moved: bool  # to the new model
    sentence: str  # why, or why not


def over_champion(report: Path, champion: Path, benchmark: str, holder: str) -> Outcome:
    """Decide between a new model and the champion by their EvalReports.

    Args:
        holder: what the champion is called in the sentence.

    Raises:
        UserError: one of them lacks the benchmark, or they are not about the same questions, judged
            in the same way; nothing can be said then.
    """
    new, old = _score(report, benchmark), _score(champion, benchmark)
    for what in COMPARABLE:
        if getattr(new, what) != getattr(old, what):
            raise UserError(
                f"the two cannot be compared on benchmark `{benchmark}`: its {what} is "
                f"{getattr(new, what)} for the new model, {getattr(old, what)} for {holder}"
            )
    try:
        comparison = compare(report, champion, benchmark)
    except UserError as error:  # the champion's report lies in a folder that will be gone
        said = error.message.replace(str(champion), holder).replace(str(report), "the new model")
        raise UserError(said) from None
    return _decided(comparison, new, holder)


def over_floors(report: Path, benchmark: str) -> Outcome:
    """Decide whether a first model beats the highest score that takes no look at the picture.

    Raises:
        UserError: it lacks the benchmark, or nobody else answered it.
    """
    score = _score(report, benchmark)
    others: dict[Player, float] = {
        player: result.mean for player, result in score.players.items() if player != "picture"
    }
    if not others:
        raise UserError(f"nobody but the model answered benchmark `{benchmark}`: no floor to beat")
    strongest = max(others, key=lambda player: others[player])
    comparison = compare(report, report, benchmark, other_player=strongest)
    return _decided(comparison, score, f"the highest floor ({PLAYERS[strongest]})")


def questions_key(report: Path, benchmark: str) -> str | None:
    """A name of what a report was asked in a benchmark: equal where scores can be compared.

    None if it was not asked the benchmark.
    """
    try:
        score = _score(report, benchmark)
    except UserError:
        return None
    about = "\n".join([benchmark, *(str(getattr(score, what)) for what in COMPARABLE)])
    return hashlib.sha256(about.encode()).hexdigest()[:12]


def _score(report: Path, benchmark: str) -> Score:
    score = Scores.read(report).find(benchmark)
    if score is None:
        raise UserError(f"{report} has no scores of benchmark `{benchmark}`")
    return score


def _decided(comparison: Comparison, score: Score, rival: str) -> Outcome:
    figures = (
        f"{percent(comparison.mean_a)} of {comparison.n:,} questions of `{score.benchmark}` right, "
        f"{rival} {percent(comparison.mean_b)}: {points(comparison.difference)} points (95 % "
        f"interval {span(comparison.interval)}, must lie above 0) [{score.judged}]"
    )
    return Outcome(comparison.interval[0] > 0, figures)
