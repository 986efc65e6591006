"""The recipe of the control: what it shares with stage 1 and what it leaves out."""

from collections.abc import Callable
from pathlib import Path

import pytest

from siqvl.errors import UserError
from siqvl.evaluation.control import control_recipe
from siqvl.recipe import Recipe

ALIGNED = {"stage": "projector_alignment", "benchmark": "vqa"}


@pytest.fixture
def build(tmp_path: Path, small_recipe: Callable[..., Recipe]) -> Callable[..., Recipe]:
    """Three benchmarks, two of them of stage 1, and the gates that a test wants."""

    def with_gates(*gates: dict) -> Recipe:
        content = small_recipe(tmp_path).model_dump(mode="json")
        first = content["evaluation"]["benchmarks"][0]
        content["evaluation"] |= {
            "random_tower": True,
            "champion_benchmark": "late",
            "benchmarks": [
                first | {"name": "vqa", "stages": ["projector_alignment", "vqa_sft"]},
                first | {"name": "other", "stages": ["projector_alignment"]},
                first | {"name": "late", "stages": ["dpo"]},
            ],
            "gates": list(gates),
        }
        return Recipe.model_validate(content)

    return with_gates


def benchmarks(recipe: Recipe) -> dict[str, list[str]]:
    return {b.name: list(b.blind) for b in control_recipe(recipe).evaluation.benchmarks}


def test_only_the_tower_differs_in_what_is_trained(build) -> None:
    recipe = build()
    control = control_recipe(recipe)
    assert control.model.random_tower
    assert control.model.model_copy(update={"random_tower": False}) == recipe.model
    assert (control.stages, control.data, control.seed) == (
        recipe.stages,
        recipe.data,
        recipe.seed,
    )
    # what Flyte sends to a pod and reads there again is a recipe that holds
    assert Recipe.model_validate_json(control.model_dump_json()) == control


def test_without_gates_it_is_scored_on_all_of_stage_1(build) -> None:
    assert benchmarks(build()) == {"vqa": [], "other": []}


def test_gates_say_what_is_scored(build) -> None:
    against = ALIGNED | {"claim": "a", "over": {"random_tower": True}}
    assert benchmarks(build(against)) == {"vqa": []}
    floor = {"player": "no_picture", "random_tower": True}
    stays = ALIGNED | {"claim": "b", "random_tower": True, "over": floor}
    assert benchmarks(build(against, stays)) == {"vqa": ["no_picture"]}
    blind_of_stage_1 = ALIGNED | {"claim": "c", "over": {"player": "other_picture"}}
    assert benchmarks(build(against, blind_of_stage_1)) == {"vqa": []}


def test_a_control_that_nothing_is_asked_of_is_refused(build) -> None:
    recipe = build()
    late = recipe.evaluation.model_copy(update={"benchmarks": recipe.evaluation.benchmarks[2:]})
    with pytest.raises(UserError, match="no benchmark is scored after projector_alignment"):
        control_recipe(recipe.model_copy(update={"evaluation": late}))
