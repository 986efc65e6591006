"""MathVista's accuracy (Lu et al. 2024, arXiv:2310.02255), by the rules of `calculate_score.py`.

What was extracted from a response is brought to the form of the answer, and has to equal it. Of a
question with options it is a letter, in brackets or alone, else the option that is nearest by edit
distance, whatever is said: saying nothing chooses the shortest one. Otherwise it is an integer
(cut, not rounded), a number rounded to the row's precision, or the text of a list.

The script has GPT extract the answer wherever a response is not the bare answer. Here, without it,
the option that is meant (`meant_option`), the last number or the last list is taken there. The type
of a row says what its answer is, and its precision: `integer`, `float 1`, `list`.
"""

from __future__ import annotations

import re

from siqvl.evaluation.scoring.meant_option import place_meant, places_right
from siqvl.evaluation.scoring.scorers.anls import edit_distance
from siqvl.evaluation.scoring.scorers.base import Reference, Scorer

_NUMBER = re.compile(r"-?\d[\d,]*\.?\d*|-?\.\d+")
_LIST = re.compile(r"\[[^\[\]]*\]")


def place(prediction: str, choices: list[str]) -> int:
    """Finds the option that is answered: there always is one."""
    text = prediction.strip()
    names = [chr(ord("A") + number) for number in range(len(choices))]
    bracketed = re.findall(r"\(([a-zA-Z])\)", text)
    name = bracketed[0].upper() if bracketed else text
    if name in names:  # also where another option reads so
        return names.index(name)
    if not bracketed and text not in choices:
        meant = place_meant(text, choices, by_letter=True)
        if meant is not None:
            return meant
    distances = [edit_distance(name, choice) for choice in choices]
    return distances.index(min(distances))


def value(prediction: str, type: str) -> str | None:
    """Brings an answer in words to the form of the row's answers; None: it is no number."""
    kind, _, digits = type.partition(" ")
    if kind not in ("integer", "float"):
        lists = _LIST.findall(prediction)
        return lists[-1] if kind == "list" and lists else prediction.strip()
    try:
        found = float(prediction)
    except ValueError:
        numbers = _NUMBER.findall(prediction)
        if not numbers:
            return None
        found = float(numbers[-1].replace(",", ""))
    try:
        return str(
            int(found) if kind == "integer" else round(found, int(digits) if digits else None)
        )
    except (OverflowError, ValueError):  # infinity, NaN
        return None


def _judge(prediction: str, reference: Reference) -> float:
    answers, choices, kind, _ = reference
    if choices:
        return float(place(prediction, choices) in places_right(answers, choices))
    return float(value(prediction, kind) in answers)


SCORER = Scorer("mathvista", 1, _judge, chooses=True)
