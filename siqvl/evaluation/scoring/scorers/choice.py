"""Multiple choice: whether the option that a text means stands at the place of a right one.

Places are compared, not words: two options that differ in case or quotes alone are two options. A
question without options, as there are some in MMMU and MathVista, is one for `exact_match`.
"""

from __future__ import annotations

from siqvl.evaluation.scoring.meant_option import place_meant, places_right
from siqvl.evaluation.scoring.scorers.base import Reference, Scorer
from siqvl.evaluation.scoring.scorers.exact_match import exact_match


def _judge(prediction: str, reference: Reference) -> float:
    answers, choices, _, by_letter = reference
    if not choices:
        return float(exact_match(prediction, answers))
    meant = place_meant(prediction, choices, by_letter=by_letter)
    return float(meant in places_right(answers, choices))


SCORER = Scorer("choice", 2, _judge, chooses=True)
