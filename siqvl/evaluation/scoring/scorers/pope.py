"""POPE's polling of objects (Li et al. 2023, arXiv:2305.10355): is there a … in the picture?

The rule is that of its `evaluate.py`: of the text up to the first full stop, without commas, the
answer is `no` where a word is exactly `No`, `no` or `not`, and `yes` in every other case. So a
model that says nothing, or `NO`, says yes.

What is published is the F1 of `yes` over each way to choose the absent objects (random, popular,
adversarial), which are the types of its questions. A share of nothing is 0; the script divides by
zero there.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from siqvl.data.schema import Row
from siqvl.evaluation.scoring.scorers.base import Reference, Scorer

NO = {"No", "no", "not"}


def says_yes(prediction: str) -> bool:
    """Reads an answer."""
    return not NO & set(prediction.split(".")[0].replace(",", "").split(" "))


def _judge(prediction: str, reference: Reference) -> float:
    return float(says_yes(prediction) == (reference.answers[0].lower() == "yes"))


def _figures(lines: Sequence[Row]) -> dict[str, float]:
    """Per cent, of all questions and of each type."""
    types = sorted({line["type"] for line in lines} - {""})
    found = _rates(lines)
    for kind in types:
        rates = _rates([line for line in lines if line["type"] == kind])
        found |= {f"{kind} {name}": rate for name, rate in rates.items()}
    return found


def _rates(lines: Sequence[Row]) -> dict[str, float]:
    is_right = np.array([line["score"] == 1 for line in lines])
    is_there = np.array([line["answers"][0].lower() == "yes" for line in lines])
    says = is_right == is_there
    both = float((says & is_there).sum())
    return {
        "accuracy": 100 * float(is_right.mean()),
        "precision": 100 * both / max(says.sum(), 1),
        "recall": 100 * both / max(is_there.sum(), 1),
        "F1": 200 * both / max(says.sum() + is_there.sum(), 1),
        "yes ratio": 100 * float(says.mean()),
    }


SCORER = Scorer("pope", 1, _judge, figures=_figures)
