"""What all scorers have in common."""

from typing import get_args

import pytest

from siqvl.evaluation.scoring.scorers import scorer
from siqvl.recipe import ScorerName


@pytest.mark.parametrize("name", get_args(ScorerName))
def test_every_scorer_of_a_recipe(name) -> None:
    found = scorer(name)
    assert found.label == f"{name}/{found.version}"
    answers, choices = ["blue"] * 10, ["red", "blue"]
    assert found.score("blue", answers, choices) == 1.0
    assert found.score("red", answers, choices) == 0.0
    assert found.score("", answers, choices) == 0.0
