"""Controls: what a stage is worth beyond what it would learn without the thing that is claimed.

Behind a tower of random weights a projector learns from the words and from what random features
keep of a picture, so the distance to that control is what the trained tower is worth. By the
likelihood of the chosen completions alone, on the same pairs and steps, the model learns what stage
4 has of supervised training, so the distance to that control is what preference is worth.
"""

from __future__ import annotations

from typing import Any

from siqvl.errors import UserError
from siqvl.recipe import Control, Recipe, control_of

#: The loss of the control of stage 4. Adam's steps do not depend on its scale.
LIKELIHOOD_ALONE = {"sft": 1.0}


def control_recipe(recipe: Recipe, control: Control) -> Recipe:
    """Makes the recipe of a control: all as in its stage but the one thing that it does without.

    It is scored on the benchmarks of its stage, by the blind players only where the recipe's gates
    name them; the control of stage 1 on what gates compare with it alone, if they do.

    Raises:
        UserError: there is no such benchmark.
    """
    asked = _asked(recipe, control)
    named = {name for name, _ in asked} if control is Control.RANDOM_TOWER else set()
    benchmarks = [
        benchmark.model_copy(
            update={"blind": [one for one in benchmark.blind if (benchmark.name, one) in asked]}
        )
        for benchmark in recipe.evaluation.benchmarks
        if control.stage in benchmark.stages and (not named or benchmark.name in named)
    ]
    if not benchmarks:
        raise UserError(
            f"evaluation.{control}: no benchmark is scored after {control.stage}, so there is "
            "nothing to compare the control with"
        )
    scored = {
        "benchmarks": benchmarks,
        "gates": [],
        "champion_benchmark": None,
        **{one.value: False for one in Control},
    }
    evaluation = recipe.evaluation.model_copy(update=scored)
    return recipe.model_copy(update={**_trained(recipe, control), "evaluation": evaluation})


def _trained(recipe: Recipe, control: Control) -> dict[str, Any]:
    """The section of the recipe that says what the control is trained without."""
    if control is Control.RANDOM_TOWER:
        return {"model": recipe.model.model_copy(update={control.value: True})}
    marked = {"loss": LIKELIHOOD_ALONE, control.value: True}
    dpo = recipe.stages.dpo.model_copy(update=marked)
    return {"stages": recipe.stages.model_copy(update={"dpo": dpo})}


def _asked(recipe: Recipe, control: Control) -> set[tuple[str, str]]:
    """(benchmark, player) of the control that gates compare."""
    asked: set[tuple[str, str]] = set()
    for gate in recipe.evaluation.gates:
        if control_of(gate) is control:
            asked.add((gate.benchmark, "picture"))
        if control_of(gate.over) is control:
            asked.add((gate.over.benchmark or gate.benchmark, gate.over.player))
    return asked
