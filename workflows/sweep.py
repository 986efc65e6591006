"""A grid over one stage: every combination of some figures, trained, scored and compared.

pyflyte run workflows/sweep.py sweep --stage vqa_sft --checkpoint DIR --data DIR --benchmarks DIR \
    --grid '{"values": {"learning_rate": [0.0005, 0.001]}}' --concurrency 2

Each point is a child of the sweep's run in MLflow, so its page compares them.
"""

from __future__ import annotations

from functools import partial

from flytekit import dynamic, map_task, workflow

from siqvl.recipe import Recipe, Stage
from siqvl.recipe.compute import Kind
from siqvl.recipe.grid import Grid, points
from tasks.contracts import TINY, Checkpoint, PreparedData
from tasks.given import begun
from tasks.requested import requested
from tasks.resources import plan, planner
from tasks.sweep_point import close_sweep, compare_points, open_sweep, sweep_point


@workflow(on_failure=close_sweep)
def sweep(
    stage: Stage,
    data: PreparedData,
    benchmarks: PreparedData,
    grid: Grid,
    checkpoint: Checkpoint | None = None,
    recipe: Recipe = TINY,
    concurrency: int = 2,
) -> str:
    """Try every point of the grid, at most `concurrency` at a time; the ranking as a table."""
    return all_points(
        stage=stage,
        data=data,
        benchmarks=benchmarks,
        grid=grid,
        checkpoint=checkpoint,
        recipe=recipe,
        concurrency=concurrency,
    )


@dynamic(**planner())
@begun
def all_points(
    stage: Stage,
    data: PreparedData,
    benchmarks: PreparedData,
    grid: Grid,
    recipe: Recipe,
    concurrency: int,
    checkpoint: Checkpoint | None = None,
) -> str:
    """The tasks of a sweep, with what the recipe asks of the cluster."""
    plan(recipe)
    run = requested(open_sweep(stage=stage, recipe=recipe, grid=grid), Kind.DATA, recipe)
    try_one = partial(
        sweep_point, stage=stage, data=data, benchmarks=benchmarks, run=run, checkpoint=checkpoint
    )
    tried = map_task(try_one, concurrency=concurrency)(point=points(recipe, stage, grid))
    tried = requested(tried, Kind.TRAINING, recipe)
    table = compare_points(reports=tried, stage=stage, recipe=recipe, grid=grid, run=run)
    return requested(table, Kind.DATA, recipe)


def __dir__() -> list[str]:
    """What there is to run: `pyflyte run workflows/sweep.py` lists it."""
    return ["sweep"]
