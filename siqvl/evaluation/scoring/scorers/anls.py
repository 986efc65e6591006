"""ANLS, average normalised Levenshtein similarity (Biten et al. 2019, arXiv:1905.13648).

Of one question, with NL the edit distance over the length of the longer string: the maximum over
the answers of `1 - NL` where `NL < 0.5`, else 0 (equation 1 of the paper; also DocVQA's metric).
Both sides are lower-cased and their spaces made single, as by DocVQA's script. That script departs
from the equation in two points, which `official: true` follows: it keeps a similarity of exactly
0.5, and the length that it divides by is that of the texts before their spaces are made single.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from siqvl.evaluation.scoring.scorers.base import Reference, Scorer

THRESHOLD = 0.5


def edit_distance(one: str, other: str) -> int:
    """Counts the fewest characters to insert, delete or substitute (Levenshtein 1966)."""
    row = list(range(len(other) + 1))  # distances of one's prefix to every prefix of the other
    for i, left in enumerate(one, start=1):
        diagonal, row[0] = row[0], i
        for j, right in enumerate(other, start=1):
            diagonal, row[j] = (row[j], min(row[j] + 1, row[j - 1] + 1, diagonal + (left != right)))
    return row[-1]


def similarity(prediction: str, answer: str) -> float:
    """Computes `1 - NL` of two texts, or 0 where NL reaches the threshold."""
    one, other = _single_spaced(prediction), _single_spaced(answer)
    longer = max(len(one), len(other))
    distance = edit_distance(one, other) / longer if longer else 0.0
    return 1 - distance if distance < THRESHOLD else 0.0


def official_similarity(prediction: str, answer: str) -> float:
    """Computes the same as `infographicsvqa_eval.py` does (rrc.cvc.uab.es, ch. 17)."""
    distance = edit_distance(_single_spaced(prediction), _single_spaced(answer))
    found = 1 - distance / max(len(prediction.upper()), len(answer.upper()), 1)
    return found if found >= 1 - THRESHOLD else 0.0


def _single_spaced(text: str) -> str:
    return " ".join(text.lower().split())


def _best(measure: Callable[[str, str], float], prediction: str, reference: Reference) -> float:
    return max((measure(prediction, answer) for answer in reference.answers), default=0.0)


SCORER = Scorer("anls", 1, partial(_best, similarity))
OFFICIAL = Scorer("anls-official", 1, partial(_best, official_similarity))
