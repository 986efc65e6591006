"""ScienceQA as LLaVA scores it (`eval_science_qa.py`, Liu et al. 2023, arXiv:2304.08485).

The answer is a letter from A to E: the whole text, or what it begins with before a full stop and a
space, or what `The answer is X` says, where it is said once and any character follows (`The answer
is Above` says A, and `The answer is A` at the end of a text says nothing). All else is wrong; the
script of ScienceQA's own authors guesses there.
"""

from __future__ import annotations

import re

from siqvl.evaluation.scoring.meant_option import places_right
from siqvl.evaluation.scoring.scorers.base import Reference, Scorer

LETTERS = "ABCDE"


def letter(prediction: str) -> str:
    """Reads the letter that is answered; empty where none is."""
    if len(prediction) == 1 and prediction in LETTERS:
        return prediction
    if prediction[:1] in tuple(LETTERS) and prediction[1:3] == ". ":
        return prediction[0]
    said = re.findall(r"The answer is ([A-Z]).", prediction)
    return said[0] if len(said) == 1 and said[0] in LETTERS else ""


def _judge(prediction: str, reference: Reference) -> float:
    found = letter(prediction)
    place = LETTERS.index(found) if found else None
    return float(place in places_right(reference.answers, reference.choices))


SCORER = Scorer("scienceqa", 1, _judge, chooses=True)
