"""Rewards against numbers worked out by hand, and against the scorers of benchmarks."""

import pytest

from siqvl.evaluation.scoring.scorers import scorer
from siqvl.recipe import Recipe, RewardStage
from siqvl.training.rewards.earned import Earned
from tests.small_recipe import ROOT

END = 7
STEPS = "red circle, 1; red square, 2.\nAnswer: "


def earned(**figures: object) -> Earned:
    stage = Recipe.load(ROOT / "recipes" / "rewards.yaml").stages.rlvr
    assert stage is not None
    content = stage.model_dump(mode="json") | figures
    return Earned(RewardStage.model_validate(content), frozenset({END}))


@pytest.mark.parametrize(
    ("text", "ended", "expected"),
    [
        (f"{STEPS}2", True, 1.0),
        (f"{STEPS}**2**.", True, 1.0),
        (f"{STEPS}3", True, 0.0),
        (f"{STEPS}2", False, 0.0),  # cut off: nobody knows what would have come
        ("2", True, 0.0),  # never said which of it is the answer
        ("", True, 0.0),
    ],
)
def test_the_answer_after_the_marker_earns_what_the_scorer_gives(
    text: str, ended: bool, expected: float
) -> None:
    assert earned().answer(text, [1, END] if ended else [1, 2], ["2"], []) == expected


@pytest.mark.parametrize("name", ["vqav2", "anls", "choice"])
def test_any_scorer_is_a_reward(name: str) -> None:
    """In part right is earned in part, as a benchmark would score it."""
    answers, choices = ["blue", "blue", *["navy blue"] * 8], ["blue", "navy blue"]
    given = earned(scorer=name).answer("It is.\nAnswer: blue", [END], answers, choices)
    assert given == scorer(name).score("blue", answers, choices)
    assert given > 0
    if name == "vqav2":  # of ten annotators two said so
        assert given == pytest.approx(0.6, abs=0.01)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (f"{STEPS}2", 1.0),
        ("Answer: 2", 0.0),  # no steps
        (STEPS, 0.0),  # no answer
        (f"{STEPS}2\nAnswer: 3", 0.0),  # a second try
        (f"{STEPS}2\nor perhaps 3", 0.0),  # and a second line
        ("red circle, 1.", 0.0),
    ],
)
def test_the_form_is_steps_one_marker_and_one_answer(text: str, expected: float) -> None:
    assert earned().format(text, [1, END]) == expected
    assert earned().format(text, [1, 2]) == 0.0


def test_length_costs_nothing_up_to_a_limit_and_then_more_and_more() -> None:
    reward = earned(rewards={"answer": 1.0, "length": 0.5}, free_tokens=20, max_new_tokens=60)
    costs = {tokens: reward.length([1] * tokens) for tokens in (1, 20, 30, 40, 60)}
    assert costs == {1: 0.0, 20: 0.0, 30: -0.25, 40: -0.5, 60: -1.0}


def test_functions_have_the_names_and_weights_of_the_recipe() -> None:
    reward = earned(rewards={"length": 0.5, "answer": 1.0}, free_tokens=20)
    functions, weights = reward.functions()
    columns = {
        "completions": [f"{STEPS}2", f"{STEPS}3"],
        "completion_ids": [[1] * 45 + [END], [1, END]],
        "answers": [["2"], ["2"]],
        "choices": [[], []],
        "prompts": ["", ""],
        "trainer_state": None,
    }
    assert [function.__name__ for function in functions] == ["length", "answer"]
    assert weights == [0.5, 1.0]
    assert functions[0](**columns) == [-26 / 52, 0.0]
    assert functions[1](**columns) == [1.0, 0.0]
