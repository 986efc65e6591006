"""The first and the last step of a pipeline: open its MLflow run, close it with the stage table."""

from __future__ import annotations

import time
from typing import NamedTuple

from flytekit import task

from siqvl.errors import UserError
from siqvl.evaluation.scores import Scores, stage_table
from siqvl.recipe import Recipe
from siqvl.tracking.runs import DEFAULT_STORE, RunLog, end_run, start_run, tracking_uri
from siqvl.training.check import check_recipe
from tasks.contracts import Checkpoint, EvalReport, PipelineRun, local, on_cluster, workspace
from tasks.resources import light


class PipelineResult(NamedTuple):
    """What a pipeline hands over."""

    checkpoint: Checkpoint
    mlflow_run: str


@task(**light())
def open_run(recipe: Recipe) -> PipelineRun:
    """Judge the whole recipe, then open the parent run; nothing else starts before."""
    if on_cluster() and tracking_uri(recipe) == DEFAULT_STORE:
        raise UserError(
            "no MLflow server is configured, and what a pod writes to its own disk is lost: set "
            "tracking.uri in the recipe, or MLFLOW_TRACKING_URI where you run or register"
        )
    check_recipe(recipe)
    start = time.strftime("%Y%m%d-%H%M%S")
    log = start_run(recipe, f"{recipe.name} {start}", tags={"siqvl.kind": "pipeline"})
    log.params(recipe.model_dump(mode="json"))
    # Two pipelines may start in the same second; their folders must differ.
    return PipelineRun(name=f"{start}-{log.run_id[:4]}", run_id=log.run_id)


@task(**light())
def close_run(
    recipe: Recipe, run: PipelineRun, checkpoint: Checkpoint, reports: list[EvalReport]
) -> PipelineResult:
    """Print and keep the stage table, then close the parent run."""
    scores = [Scores.read(local(report)) for report in reports]
    table = stage_table(scores)
    log = RunLog(tracking_uri(recipe), run.run_id)
    for step, report in enumerate(scores, start=1):
        log.metrics(report.metrics(), step=step)  # one step a stage: the curve shows the climb
    log.text(table + "\n", "stages.txt")
    out = workspace(recipe, run) / "stages.txt"
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text(table + "\n", encoding="utf-8")
    end_run(log, "FINISHED")
    print(f"\n{table}\n")
    return PipelineResult(checkpoint=checkpoint, mlflow_run=run.run_id)
