"""Multiple choice: whether the option that a text means, by letter or by its words, is right."""

from __future__ import annotations

from siqvl.evaluation.letters import chosen_letter
from siqvl.evaluation.scoring.scorers.base import Scorer
from siqvl.evaluation.scoring.scorers.exact_match import exact_match


def _judge(prediction: str, answers: list[str], choices: list[str]) -> float:
    chosen = chosen_letter(prediction, choices)
    return float(bool(chosen) and exact_match(chosen, answers))


SCORER = Scorer("choice", 1, _judge)
