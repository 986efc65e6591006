"""The rows of one stage, prepared by as many tasks side by side as the recipe's `data.shards` says.

pyflyte run workflows/prepared_data.py prepared_data --stage vqa_sft --recipe recipes/tiny.yaml
"""

from __future__ import annotations

from functools import partial

from flytekit import dynamic, map_task

from siqvl.recipe import Recipe
from siqvl.recipe.compute import Kind
from tasks.contracts import ALONE, TINY, PipelineRun, Preparation, PreparedData
from tasks.data_prep import data_prep, merge_shards, prepare_shard
from tasks.given import begun
from tasks.requested import requested
from tasks.resources import cached, plan, planner


@dynamic(**planner(), cache=cached())
@begun
def prepared_data(
    stage: Preparation,
    recipe: Recipe = TINY,
    run: PipelineRun = ALONE,
    benchmarks: PreparedData | None = None,
) -> PreparedData:
    """One task for one shard; otherwise a map over the shards and a merge."""
    plan(recipe)
    shards = recipe.data.shards
    if shards == 1:
        data = data_prep(stage=stage, recipe=recipe, run=run, benchmarks=benchmarks)
        return requested(data, Kind.DATA, recipe)
    prepare_one = partial(prepare_shard, stage=stage, recipe=recipe, run=run)
    pieces = map_task(prepare_one)(shard=list(range(shards)))
    pieces = requested(pieces, Kind.DATA, recipe)
    data = merge_shards(shards=pieces, stage=stage, recipe=recipe, run=run, benchmarks=benchmarks)
    return requested(data, Kind.DATA, recipe)


def __dir__() -> list[str]:
    """What there is to run: `pyflyte run workflows/prepared_data.py` lists it."""
    return ["prepared_data"]
