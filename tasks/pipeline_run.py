"""The first step of a pipeline: judge its recipe, open its MLflow run."""

from __future__ import annotations

import time

from flytekit import task

from siqvl.errors import UserError
from siqvl.recipe import Recipe
from siqvl.tracking.runs import DEFAULT_STORE, start_run, tracking_uri
from siqvl.training.check import check_recipe
from tasks.contracts import PipelineRun, on_cluster
from tasks.resources import light


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
