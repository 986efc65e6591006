"""Relaxed accuracy: within 5 % of a number, else the same text."""

import pytest

from siqvl.evaluation.scoring.scorers import scorer


@pytest.mark.parametrize(
    ("prediction", "answer", "score"),
    [
        ("105", "100", 1.0),  # exactly 5 %
        ("105.1", "100", 0.0),
        ("95", "100", 1.0),
        ("100", "105.4", 0.0),  # the share is of the answer: 5.4 / 105.4 = 5.1 %
        ("-98", "-100", 1.0),
        ("100", "-100", 0.0),
        ("2011", "2010", 1.0),  # years are numbers like others
        ("12%", "0.12", 1.0),
        ("0.12", "12%", 1.0),
        ("12", "12%", 0.0),
        ("0", "0", 1.0),
        ("0.0", "0", 0.0),  # no share can be taken of nothing: the texts must agree
        ("0.01", "0", 0.0),
        ("nan", "5", 0.0),
        ("Yes", "yes", 1.0),
        ("France.", "France", 0.0),
        (" blue ", "Blue", 1.0),
        ("1,000", "1000", 0.0),  # `float` reads no thousands separator
        ("", "5", 0.0),
    ],
)
def test_relaxed_accuracy(prediction: str, answer: str, score: float) -> None:
    assert scorer("chartqa").score(prediction, [answer], []) == score


def test_any_of_several_answers() -> None:
    assert scorer("chartqa").score("51", ["10", "50"], []) == 1.0
