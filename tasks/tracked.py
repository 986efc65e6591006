"""The MLflow run of a task: a child of its pipeline's, which knows the Flyte execution it is of."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager

from siqvl.errors import UserError
from siqvl.files import check_writable, expanded
from siqvl.recipe import Recipe
from siqvl.tracking.runs import (
    DEFAULT_STORE,
    RunLog,
    part_of_runs,
    replace_attempts,
    run_log,
    stage_run,
    tracking_uri,
)
from tasks.contracts import PipelineRun, on_cluster
from tasks.flyte_tags import ATTEMPT, EXECUTION, attempt, execution, flyte_tags
from tasks.last_chance import say_last_chance
from tasks.resources import REGISTERED_CODE, code
from tasks.stopping import stoppable
from tasks.time_limit import time_limited
from tasks.undelivered import kept


@contextmanager
def tracked(
    recipe: Recipe,
    name: str,
    run: PipelineRun,
    tags: dict[str, str] | None = None,
    again: str | None = None,
) -> Iterator[RunLog]:
    """A child run that ends in the true state.

    Args:
        again: of a killed attempt, to go on in.

    Raises:
        UserError: see `check_pod`.
    """
    check_pod(recipe)
    say_last_chance(recipe)
    # An attempt whose pod was lost could not close its run; this one takes its place.
    of_task = {EXECUTION: execution(), "mlflow.runName": name}
    replace_attempts(recipe, of_task, ATTEMPT, attempt())
    with (
        stoppable(),
        kept(recipe, on_cluster=on_cluster()),
        stage_run(recipe, name, run.parent, {**flyte_tags(), **(tags or {})}, again) as log,
        time_limited(recipe),
    ):
        yield log


@contextmanager
def of_pipeline(recipe: Recipe, run: PipelineRun) -> Iterator[RunLog]:
    """The parent run, for a task that adds to it; it ends with a failure in here."""
    say_last_chance(recipe)
    log = run_log(recipe, run.run_id)
    with stoppable(), kept(recipe, on_cluster=on_cluster()):
        with part_of_runs(recipe, log), time_limited(recipe):
            yield log
        log.flush()


@contextmanager
def share(recipe: Recipe, run: PipelineRun) -> Iterator[None]:
    """A share of the work of another task, whose run it leaves to that; its pipeline's fails."""
    if run.parent:
        with of_pipeline(recipe, run):
            yield
        return
    say_last_chance(recipe)
    with stoppable(), time_limited(recipe):
        yield


def check_pod(recipe: Recipe) -> None:
    """Refuse to start where work would be lost, or in a pod that has not the code registered.

    Raises:
        UserError: here `output_dir` cannot be written to; in a pod no tracking server is
            configured, or the image has other code.
    """
    if not on_cluster():
        check_writable(expanded(recipe.output_dir))
        return
    if tracking_uri(recipe) == DEFAULT_STORE:
        raise UserError(
            "no MLflow server is configured, and what a pod writes to its own disk is lost: set "
            "tracking.uri in the recipe, or MLFLOW_TRACKING_URI where you run or register"
        )
    # `pyflyte run` ships the modules that it has imported; those that import torch are not.
    if os.environ.get(REGISTERED_CODE, code()) != code():
        raise UserError(
            "the image has other code than the checkout that this task was registered from: build "
            "and push it again (`make image`), or ship all of the code with --copy all"
        )
