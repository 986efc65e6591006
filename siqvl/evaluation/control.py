"""The control of stage 1: the same training behind a tower of random weights.

What a projector learns there it has learnt from the words and from what random features keep of a
picture, so the distance to the control is what the trained tower is worth.
"""

from __future__ import annotations

from siqvl.errors import UserError
from siqvl.recipe import Recipe, Stage


def control_recipe(recipe: Recipe) -> Recipe:
    """Makes the recipe of the control: a random tower, scored on what is compared with it alone.

    That is what the recipe's gates name; every benchmark of stage 1, without the blind players,
    where they name nothing of the control.

    Raises:
        UserError: there is no such benchmark.
    """
    asked = _asked(recipe)
    benchmarks = [
        benchmark.model_copy(
            update={"blind": [one for one in benchmark.blind if (benchmark.name, one) in asked]}
        )
        for benchmark in recipe.evaluation.benchmarks
        if Stage.PROJECTOR_ALIGNMENT in benchmark.stages
        and (not asked or benchmark.name in {name for name, _ in asked})
    ]
    if not benchmarks:
        raise UserError(
            "evaluation.random_tower: no benchmark is scored after "
            f"{Stage.PROJECTOR_ALIGNMENT}, so there is nothing to compare the control with"
        )
    scored = {
        "benchmarks": benchmarks,
        "gates": [],
        "champion_benchmark": None,
        "random_tower": False,
    }
    return recipe.model_copy(
        update={
            "model": recipe.model.model_copy(update={"random_tower": True}),
            "evaluation": recipe.evaluation.model_copy(update=scored),
        }
    )


def _asked(recipe: Recipe) -> set[tuple[str, str]]:
    """(benchmark, player) of the control that gates compare."""
    asked: set[tuple[str, str]] = set()
    for gate in recipe.evaluation.gates:
        if gate.random_tower:
            asked.add((gate.benchmark, "picture"))
        if gate.over.random_tower:
            asked.add((gate.over.benchmark or gate.benchmark, gate.over.player))
    return asked
