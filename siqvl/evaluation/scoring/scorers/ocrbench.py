"""OCRBench (Liu et al. 2023, arXiv:2305.07895): an answer is right that stands in what is said.

The rule is that of its `example.py`: both sides in lower case, line breaks being spaces; of
handwritten formulas (HME100k) without any spaces, and with their case. What is published is the
number of right answers, of 1,000 questions of ten types in five groups.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from siqvl.data.schema import Row
from siqvl.evaluation.scoring.scorers.base import Reference, Scorer

FORMULAS = "Handwritten Mathematical Expression Recognition"


def _judge(prediction: str, reference: Reference) -> float:
    formula = reference.type == FORMULAS
    given = _plain(prediction, formula)
    return float(any(_plain(answer, formula) in given for answer in reference.answers))


def _plain(text: str, formula: bool) -> str:
    text = text.strip().replace("\n", " ")
    return text.replace(" ", "") if formula else text.lower()


def _figures(lines: Sequence[Row]) -> dict[str, float]:
    """Right answers of all questions, and of each group."""
    right: Counter[str] = Counter()
    for line in lines:
        kind = line["type"]
        right[
            "Text Recognition" if kind.endswith(" Text Recognition") or kind in ALONE else kind
        ] += line["score"]
    return {"final score": sum(right.values()), **dict(sorted(right.items()))}


#: Of the group of text recognition, beside those whose names say it.
ALONE = {"Handwriting Recognition", "Digit String Recognition"}

SCORER = Scorer("ocrbench", 1, _judge, figures=_figures)
