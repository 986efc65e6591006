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
from tasks.resources import asked, cached, planner


@dynamic(**planner(), cache=cached())
def evaluated(
    checkpoint: Checkpoint, data: PreparedData, recipe: Recipe = TINY, run: PipelineRun = ALONE
) -> EvalReport:
    """One task for one shard; otherwise a map over the shards and a merge."""
    shards = recipe.evaluation.shards
    if shards == 1:
        report = evaluation(checkpoint=checkpoint, data=data, recipe=recipe, run=run)
        return report.with_overrides(**asked(Kind.EVALUATION, recipe))
    answer_one = partial(evaluate_shard, checkpoint=checkpoint, data=data, recipe=recipe, run=run)
    answered = map_task(answer_one)(shard=list(range(shards)))
    answered = answered.with_overrides(**asked(Kind.EVALUATION, recipe))
    report = merge_evaluation(
        shards=answered, checkpoint=checkpoint, data=data, recipe=recipe, run=run
    )
    return report.with_overrides(**asked(Kind.DATA, recipe))
