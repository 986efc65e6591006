"""Multiple choice: whether the option that a text means stands at the place of a right one.

Places are compared, not words: two options that differ in case or quotes alone are two options.
"""

from __future__ import annotations

from siqvl.evaluation.scoring.meant_option import place_meant, places_right
from siqvl.evaluation.scoring.scorers.base import Scorer


def _judge(prediction: str, answers: list[str], choices: list[str]) -> float:
    return float(place_meant(prediction, choices) in places_right(answers, choices))


def _judge_letter(prediction: str, answers: list[str], choices: list[str]) -> float:
    meant = place_meant(prediction, choices, by_letter=True)
    return float(meant in places_right(answers, choices))


SCORER = Scorer("choice", 2, _judge, _judge_letter)
