"""Multiple choice by generation."""

import pytest

from siqvl.evaluation.scoring.scorers import scorer

CHOICES = ["red", "Dark blue", "teal"]


@pytest.mark.parametrize(
    ("prediction", "score"),
    [
        ("B", 1.0),
        ("(b)", 1.0),
        ("dark blue", 1.0),
        ("The answer is B. Dark blue", 1.0),
        ("A", 0.0),
        ("red", 0.0),
        ("red or dark blue", 0.0),
        ("D", 0.0),
        ("", 0.0),
    ],
)
def test_the_option_that_is_meant(prediction: str, score: float) -> None:
    assert scorer("choice").score(prediction, ["dark blue"], CHOICES) == score
