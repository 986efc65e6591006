"""The tasks of a sweep (`workflows/sweep.py`): open its run, try one point, compare them all."""

from __future__ import annotations

import time
from pathlib import Path

from flytekit import task
from flytekit.types.error.error import FlyteError

from siqvl.check import check_stage
from siqvl.evaluation.evaluate import evaluate
from siqvl.evaluation.ranking import rank, ranking_table
from siqvl.evaluation.scoring.scores import Scores
from siqvl.recipe import Recipe, Stage
from siqvl.recipe.compute import Kind
from siqvl.recipe.grid import Grid, Point, points
from siqvl.recipe.reading.changes import in_short
from siqvl.report.loss_page import keep_loss_page
from siqvl.tracking.inputs import log_inputs
from siqvl.tracking.runs import end_run, start_run
from siqvl.training.stage import train_stage
from tasks.contracts import Checkpoint, EvalReport, PipelineRun, PreparedData, local, workspace
from tasks.flyte_tags import flyte_tags
from tasks.given import begun
from tasks.pipeline_failure import close
from tasks.preemption import grace, states_kept
from tasks.resources import policy
from tasks.stopping import stoppable
from tasks.tracked import check_pod, of_pipeline, tracked

RANKING = "ranking.txt"


@task(**policy(Kind.DATA))
@begun
@stoppable()
def open_sweep(stage: Stage, recipe: Recipe, grid: Grid) -> PipelineRun:
    """Judge every point, then open the parent run of the sweep."""
    check_pod(recipe)
    check_stage(recipe, stage)
    tried = points(recipe, stage, grid)
    start = time.strftime("%Y%m%d-%H%M%S")
    tags = {"siqvl.kind": "sweep", "siqvl.stage": stage.value, **flyte_tags()}
    name = f"{recipe.name} {stage} sweep {start} {in_short(recipe.changes)}".rstrip()
    log = start_run(recipe, name, tags=tags)
    log.params({"grid": grid.values, "points": len(tried)})
    log.flush()
    return PipelineRun(name=f"sweep-{start}-{log.run_id[:4]}", run_id=log.run_id)


@task(**policy(Kind.TRAINING))
@begun
def sweep_point(
    point: Point,
    stage: Stage,
    data: PreparedData,
    benchmarks: PreparedData,
    run: PipelineRun,
    checkpoint: Checkpoint | None = None,
) -> EvalReport:
    """Train the stage with the figures of one point and score what comes out."""
    recipe = point.recipe
    place = workspace(recipe, run) / point.folder
    out, report = place / stage.value, place / "evaluation"
    with (
        tracked(recipe, point.name, run, {"siqvl.stage": stage.value}) as log,
        states_kept(out, grace(recipe)),
    ):
        parent = local(checkpoint)
        inputs = {"data": local(data), "checkpoint": parent, "output": out, "grace": grace(recipe)}
        card = train_stage(stage, recipe, **inputs, log=log)
        assert card is not None  # this process is the first
        keep_loss_page(log, out)
        scores = evaluate(recipe, checkpoint=out, data=local(benchmarks), out=report)
        log.metrics({**card.metrics, **scores.metrics()})
        log.artifact(out, "checkpoint")
        log.artifact(report, "evaluation")
        for score in scores.scores:
            log_inputs(log, local(benchmarks) / score.benchmark, "evaluation")
    return EvalReport(str(report))


@task(**policy(Kind.DATA))
@begun
def compare_points(
    reports: list[EvalReport], stage: Stage, recipe: Recipe, grid: Grid, run: PipelineRun
) -> str:
    """Rank the points by their scores, in a table that is kept with the sweep's run."""
    with of_pipeline(recipe, run) as log:
        names = [point.name for point in points(recipe, stage, grid)]
        folders: list[Path] = [local(report) for report in reports]
        table = ranking_table(rank(dict(zip(names, folders, strict=True))))
        log.text(table + "\n", RANKING)
        for step, folder in enumerate(folders):
            log.metrics(Scores.read(folder).metrics(), step=step)  # one step a point
        end_run(log, "FINISHED")
    print(f"\n{table}\n")
    return table


@task(**policy(Kind.DATA))
@stoppable()
def close_sweep(
    stage: Stage,
    data: PreparedData,
    benchmarks: PreparedData,
    grid: Grid,
    recipe: Recipe,
    checkpoint: Checkpoint | None = None,
    concurrency: int = 2,
    err: FlyteError | None = None,
) -> None:
    """Close the run of a sweep that failed, and those of points that lost pods left open."""
    close(recipe, err)


def __dir__() -> list[str]:
    """What there is to run: flytekit cannot draw the error that `close_sweep` is given."""
    return ["open_sweep", "sweep_point", "compare_points"]
