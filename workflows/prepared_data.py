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
from tasks.resources import asked, cached, planner


@dynamic(**planner(), cache=cached())
def prepared_data(
    stage: Preparation,
    recipe: Recipe = TINY,
    run: PipelineRun = ALONE,
    benchmarks: PreparedData | None = None,
) -> PreparedData:
    """One task for one shard; otherwise a map over the shards and a merge."""
    shards, request = recipe.data.shards, asked(Kind.DATA, recipe)
    if shards == 1:
        data = data_prep(stage=stage, recipe=recipe, run=run, benchmarks=benchmarks)
        return data.with_overrides(**request)
    prepare_one = partial(prepare_shard, stage=stage, recipe=recipe, run=run)
    pieces = map_task(prepare_one)(shard=list(range(shards))).with_overrides(**request)
    data = merge_shards(shards=pieces, stage=stage, recipe=recipe, run=run, benchmarks=benchmarks)
    return data.with_overrides(**request)
