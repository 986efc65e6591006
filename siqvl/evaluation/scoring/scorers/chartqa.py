"""ChartQA's relaxed accuracy (Methani et al. 2020, arXiv:1909.00997; Masry et al. 2022).

A number may be off by 5 % of the answer, anything else must be equal but for its case. Numbers are
told apart as in the code everybody scores with, `relaxed_correctness` of pix2struct: `float` reads
them, a trailing per cent sign divides by 100, and an answer of zero, of which no share can be
taken, must be met to the letter. Years are numbers like others: 2010 passes for 2011.
"""

from __future__ import annotations

from siqvl.evaluation.scoring.scorers.base import Reference, Scorer

TOLERANCE = 0.05


def number(text: str) -> float | None:
    """Reads the number a text stands for, `12%` being 0.12; None if it is none."""
    try:
        return float(text.rstrip("%")) / 100 if text.endswith("%") else float(text)
    except ValueError:
        return None


def relaxed_match(prediction: str, answer: str) -> bool:
    """Tells whether a prediction is close enough to an answer."""
    prediction, answer = prediction.strip(), answer.strip()
    found, wanted = number(prediction), number(answer)
    if found is not None and wanted:
        return abs(found - wanted) / abs(wanted) <= TOLERANCE
    return prediction.lower() == answer.lower()


def _judge(prediction: str, reference: Reference) -> float:
    return float(any(relaxed_match(prediction, answer) for answer in reference.answers))


SCORER = Scorer("chartqa", 1, _judge)
