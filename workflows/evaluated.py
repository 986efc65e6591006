"""A checkpoint scored by as many tasks side by side as the recipe's `evaluation.shards` says.

pyflyte run workflows/evaluated.py evaluated --checkpoint DIR --data DIR --recipe recipes/tiny.yaml
"""

from __future__ import annotations

from functools import partial

from flytekit import dynamic, map_task

from siqvl.recipe import Recipe
from siqvl.recipe.compute import Kind
from tasks.contracts import ALONE, TINY, Checkpoint, EvalReport, PipelineRun, PreparedData
from tasks.evaluation import evaluate_shard, evaluation, merge_evaluation
from tasks.given import begun
from tasks.requested import requested
from tasks.resources import cached, plan, planner


@dynamic(**planner(), cache=cached())
@begun
def evaluated(
    checkpoint: Checkpoint, data: PreparedData, recipe: Recipe = TINY, run: PipelineRun = ALONE
) -> EvalReport:
    """One task for one shard; otherwise a map over the shards and a merge."""
    plan(recipe)
    shards = recipe.evaluation.shards
    if shards == 1:
        report = evaluation(checkpoint=checkpoint, data=data, recipe=recipe, run=run)
        return requested(report, Kind.EVALUATION, recipe)
    answer_one = partial(evaluate_shard, checkpoint=checkpoint, data=data, recipe=recipe, run=run)
    answered = map_task(answer_one)(shard=list(range(shards)))
    answered = requested(answered, Kind.EVALUATION, recipe)
    report = merge_evaluation(
        shards=answered, checkpoint=checkpoint, data=data, recipe=recipe, run=run
    )
    return requested(report, Kind.DATA, recipe)


def __dir__() -> list[str]:
    """What there is to run: `pyflyte run workflows/evaluated.py` lists it."""
    return ["evaluated"]
