"""Multiple choice: whether the option that a text means stands at the place of a right one.

Places are compared, not words: two options that differ in case or quotes alone are two options. A
question without options, as there are some in MMMU and MathVista, is one for `exact_match`.
"""

from __future__ import annotations

from functools import partial

from siqvl.evaluation.scoring.meant_option import place_meant, places_right
from siqvl.evaluation.scoring.scorers.base import Scorer
from siqvl.evaluation.scoring.scorers.exact_match import exact_match


def _judge(
    prediction: str, answers: list[str], choices: list[str], by_letter: bool = False
) -> float:
    if not choices:
        return float(exact_match(prediction, answers))
    meant = place_meant(prediction, choices, by_letter=by_letter)
    return float(meant in places_right(answers, choices))


SCORER = Scorer("choice", 2, _judge, partial(_judge, by_letter=True))
