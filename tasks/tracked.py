"""The MLflow run of a task: a child of its pipeline's, which knows the Flyte execution it is of."""

from __future__ import annotations

import os
import uuid
from collections.abc import Iterator
from contextlib import contextmanager

from siqvl.errors import UserError
from siqvl.recipe import Recipe
from siqvl.tracking.runs import DEFAULT_STORE, RunLog, end_open, stage_run, tracking_uri
from tasks.contracts import PipelineRun, on_cluster
from tasks.resources import REGISTERED_CODE, code

EXECUTION = "flyte.execution"
#: In a process that another one started for its work: that one's execution.
STARTED_BY = "SIQVL_STARTED_BY"
#: Of everything that runs in this process, where there is no cluster to give it a name.
LOCAL = f"local-{uuid.uuid4().hex[:12]}"


@contextmanager
def tracked(
    recipe: Recipe, name: str, run: PipelineRun, tags: dict[str, str] | None = None
) -> Iterator[RunLog]:
    """A child run that ends in the true state.

    Raises:
        UserError: see `check_pod`.
    """
    check_pod(recipe)
    # An attempt whose pod was lost could not close its run; this one takes its place.
    end_open(recipe, {EXECUTION: execution(), "mlflow.runName": name}, "KILLED")
    with stage_run(recipe, name, run.parent, {**flyte_tags(), **(tags or {})}) as log:
        yield log


def check_pod(recipe: Recipe) -> None:
    """Refuse to start in a pod whose work would be lost, or not be that of the code registered.

    Raises:
        UserError: no tracking server is configured, or the image has other code.
    """
    if not on_cluster():
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


def flyte_tags() -> dict[str, str]:
    """Which execution this process belongs to, and which attempt at a task it is."""
    return {EXECUTION: execution(), "flyte.attempt": os.environ.get("FLYTE_ATTEMPT_NUMBER", "0")}


def execution() -> str:
    """`project/domain/name` on a cluster; else a name of this process."""
    if not on_cluster():
        return os.environ.get(STARTED_BY, LOCAL)
    names = ("PROJECT", "DOMAIN", "ID")
    return "/".join(os.environ.get(f"FLYTE_INTERNAL_EXECUTION_{name}", "") for name in names)
