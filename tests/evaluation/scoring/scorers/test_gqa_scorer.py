"""GQA's accuracy: the string itself, in the form in which its answers are published."""

import pytest

from siqvl.evaluation.scoring.scorers import scorer


@pytest.mark.parametrize(
    ("prediction", "score"),
    [("picture", 1.0), ("Picture.", 1.0), (" picture\n", 1.0), ("a picture", 0.0), ("", 0.0)],
)
def test_the_answer_and_nothing_else(prediction: str, score: float) -> None:
    assert scorer("gqa").score(prediction, ["picture"], []) == score
