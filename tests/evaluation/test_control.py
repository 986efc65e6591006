"""The recipes of the controls: what they share with their stage and what they leave out."""

from collections.abc import Callable
from pathlib import Path

import pytest

from siqvl.errors import UserError
from siqvl.evaluation.control import control_recipe
from siqvl.recipe import PIPELINE, Control, Recipe

ALIGNED = {"stage": "projector_alignment", "benchmark": "vqa"}


@pytest.fixture
def build(tmp_path: Path, small_recipe: Callable[..., Recipe]) -> Callable[..., Recipe]:
    """Three benchmarks, two of them of stage 1, and the gates that a test wants."""

    def with_gates(*gates: dict) -> Recipe:
        content = small_recipe(tmp_path).model_dump(mode="json")
        first = content["evaluation"]["benchmarks"][0]
        content["evaluation"] |= {
            **dict.fromkeys(Control, True),
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


def benchmarks(recipe: Recipe, control: Control = Control.RANDOM_TOWER) -> dict[str, list[str]]:
    found = control_recipe(recipe, control).evaluation.benchmarks
    return {benchmark.name: list(benchmark.blind) for benchmark in found}


def test_only_the_tower_differs_in_what_is_trained(build) -> None:
    recipe = build()
    control = control_recipe(recipe, Control.RANDOM_TOWER)
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
        control_recipe(recipe.model_copy(update={"evaluation": late}), Control.RANDOM_TOWER)


def test_only_the_loss_differs_in_what_stage_4_is_trained_by(build) -> None:
    recipe = build()
    control = control_recipe(recipe, Control.LIKELIHOOD)
    assert control.stages.dpo.loss == {"sft": 1.0}
    back = {"loss": recipe.stages.dpo.loss, "likelihood_control": False}
    assert control.stages.dpo.model_copy(update=back) == recipe.stages.dpo
    for stage in list(PIPELINE)[:3]:
        assert control.stage(stage) == recipe.stage(stage)
    assert (control.model, control.data, control.seed) == (recipe.model, recipe.data, recipe.seed)
    assert Recipe.model_validate_json(control.model_dump_json()) == control


def test_the_control_of_stage_4_is_scored_on_all_of_its_benchmarks(build) -> None:
    assert benchmarks(build(), Control.LIKELIHOOD) == {"late": []}
    late = {"claim": "a", "stage": "dpo", "benchmark": "late"}
    over = late | {"over": {"likelihood_control": True}}
    assert benchmarks(build(over), Control.LIKELIHOOD) == {"late": []}
    floor = {"player": "no_picture", "likelihood_control": True}
    blind = late | {"claim": "b", "likelihood_control": True, "over": floor}
    assert benchmarks(build(over, blind), Control.LIKELIHOOD) == {"late": ["no_picture"]}


def test_a_stage_that_is_its_own_control_is_refused(build) -> None:
    content = build().model_dump(mode="json")
    content["stages"]["dpo"]["loss"] = {"sft": 2.0}
    with pytest.raises(UserError, match="the control would be the stage itself"):
        Recipe.model_validate(content)
    content["evaluation"]["likelihood_control"] = False
    Recipe.model_validate(content)
    content["stages"]["dpo"] |= {"loss": {"sigmoid": 1.0}, "likelihood_control": True}
    with pytest.raises(UserError, match=r"marks a stage whose loss is \{sft: 1.0\}"):
        Recipe.model_validate(content)


def test_a_gate_needs_the_control_it_names(build) -> None:
    late = {"claim": "a", "stage": "dpo", "benchmark": "late", "over": {"likelihood_control": True}}
    content = build(late).model_dump(mode="json")
    content["evaluation"]["likelihood_control"] = False
    with pytest.raises(UserError, match="gate `a` needs `likelihood_control: true`"):
        Recipe.model_validate(content)
