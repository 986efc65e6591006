"""ANLS, by hand from equation 1 of Biten et al. 2019 (arXiv:1905.13648)."""

import pytest

from siqvl.evaluation.scoring.scorers import scorer
from siqvl.evaluation.scoring.scorers.anls import edit_distance

ANLS = scorer("anls")


@pytest.mark.parametrize(
    ("one", "other", "distance"),
    [
        ("kitten", "sitting", 3),  # Levenshtein's textbook pair
        ("sunday", "saturday", 3),
        ("", "abc", 3),
        ("abc", "", 3),
        ("flaw", "lawn", 2),
        ("same", "same", 0),
    ],
)
def test_edit_distance(one: str, other: str, distance: int) -> None:
    assert edit_distance(one, other) == distance


@pytest.mark.parametrize(
    ("prediction", "answers", "score"),
    [
        ("sitting", ["kitten"], 1 - 3 / 7),
        ("sunday", ["saturday"], 1 - 3 / 8),
        ("Coca  Cola", ["coca cola"], 1.0),
        ("abcd", ["abxy"], 0.0),  # NL is exactly 0.5, which is not below the threshold
        ("abcde", ["abcxy"], 0.6),  # NL 0.4
        ("abcde", ["abxyz"], 0.0),  # NL 0.6
        ("abcde", ["abxyz", "abcdx", "abcxy"], 0.8),  # the best of all answers
        ("", ["red"], 0.0),
        ("red", [], 0.0),
    ],
)
def test_similarity(prediction: str, answers: list[str], score: float) -> None:
    assert ANLS.score(prediction, answers, []) == pytest.approx(score)
