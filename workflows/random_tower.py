"""The control of stage 1, when the recipe's `evaluation.random_tower` asks for it.

pyflyte run workflows/random_tower.py random_tower --data DIR --benchmarks DIR
"""

from __future__ import annotations

from flytekit import dynamic

from siqvl.evaluation.control import control_recipe
from siqvl.recipe import Recipe
from tasks.contracts import ALONE, TINY, EvalReport, PipelineRun, PreparedData
from tasks.projector_alignment import projector_alignment
from tasks.resources import light
from workflows.evaluated import evaluated


@dynamic(**light())
def random_tower(
    data: PreparedData,
    benchmarks: PreparedData,
    recipe: Recipe = TINY,
    run: PipelineRun = ALONE,
) -> list[EvalReport]:
    """Train and score stage 1 behind a tower of random weights; nothing when it is not asked for.

    Args:
        data: prepared `projector_alignment` rows.
        benchmarks: what it is scored on.
    """
    if not recipe.evaluation.random_tower:
        return []
    control = control_recipe(recipe)
    checkpoint = projector_alignment(data=data, recipe=control, run=run)
    return [evaluated(checkpoint=checkpoint, data=benchmarks, recipe=control, run=run)]
