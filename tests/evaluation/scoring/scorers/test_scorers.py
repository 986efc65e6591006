"""What all scorers have in common."""

from typing import get_args

import pytest

from siqvl.evaluation.scoring.scorers import scorer
from siqvl.recipe import ScorerName
from siqvl.recipe.training_stages import DEPARTING


@pytest.mark.parametrize("name", get_args(ScorerName))
def test_every_scorer_of_a_recipe(name) -> None:
    found = scorer(name)
    assert found.label == f"{name}/{found.version}"
    answers, choices = ["no"] * 10, ["red", "no"]
    right, wrong = ("B", "A") if name in ("mmmu", "scienceqa") else ("no", "red")
    assert found.score(right, answers, choices) == 1.0
    assert found.score(wrong, answers, choices) == 0.0
    # MathVista's script takes the shortest option for nothing, MMMU's guesses
    assert found.score("", answers, choices) == {"mathvista": 1.0, "mmmu": 0.5}.get(name, 0.0)


@pytest.mark.parametrize("name", get_args(ScorerName))
def test_the_official_rule_is_there_where_ours_departs(name) -> None:
    if name in DEPARTING:
        assert scorer(name, official=True).label == f"{name}-official/1"
    else:
        with pytest.raises(KeyError):
            scorer(name, official=True)
