"""Exact match after light normalisation."""

import pytest

from siqvl.evaluation.scoring.scorers import scorer
from siqvl.evaluation.scoring.scorers.exact_match import normalise

EXACT = scorer("exact_match")


@pytest.mark.parametrize(
    ("answer", "expected"),
    [("  Two  Cats. ", "two cats"), ('"Red"', "red"), ("3.5", "3.5"), ("No", "no"), ("", "")],
)
def test_normalise(answer: str, expected: str) -> None:
    assert normalise(answer) == expected


@pytest.mark.parametrize(
    ("prediction", "answers", "score"),
    [
        ("Red.", ["blue", "red"], 1.0),
        ("reddish", ["red"], 0.0),
        ("", ["red"], 0.0),
        ("two", ["2"], 0.0),
        ("...", ["..."], 1.0),
        ("", ["..."], 0.0),
        ('"', ["."], 0.0),
    ],
)
def test_any_accepted_answer_is_right(prediction: str, answers: list[str], score: float) -> None:
    assert EXACT.score(prediction, answers, []) == score
