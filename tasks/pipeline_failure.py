"""What a pipeline does when it fails: its MLflow run ends FAILED, with the reason, and is kept."""

from __future__ import annotations

import logging

from flytekit import task
from flytekit.types.error.error import FlyteError

from siqvl.errors import one_line
from siqvl.recipe import Recipe
from siqvl.recipe.compute import Kind
from siqvl.tracking.runs import DEFAULT_STORE, REASON, end_open, end_run, find_runs, tracking_uri
from tasks.contracts import Checkpoint, on_cluster
from tasks.flyte_tags import EXECUTION, execution
from tasks.resources import policy
from tasks.stopping import stoppable

logger = logging.getLogger(__name__)


@task(**policy(Kind.DATA))
@stoppable()
def close_run(recipe: Recipe, fresh: bool = False, err: FlyteError | None = None) -> None:
    """Close the parent run of this execution, and every stage run that a lost pod left open."""
    _close(recipe, err)


@task(**policy(Kind.DATA))
@stoppable()
def close_rewards_run(
    checkpoint: Checkpoint, recipe: Recipe, fresh: bool = False, err: FlyteError | None = None
) -> None:
    """Do so for the workflow `rewards`: Flyte wants an input for each of a workflow's."""
    _close(recipe, err)


def _close(recipe: Recipe, err: FlyteError | None) -> None:
    if on_cluster() and tracking_uri(recipe) == DEFAULT_STORE:
        return  # no run was opened
    of_execution = {EXECUTION: execution()}
    try:
        for log in find_runs(recipe, {**of_execution, "siqvl.kind": "pipeline"})[:1]:
            if err is not None:
                log.tags({REASON: reason(err.message)})
            end_run(log, "FAILED")
        end_open(recipe, of_execution, "FAILED")
    except Exception as error:  # what people must read is why the pipeline failed
        logger.warning("the MLflow run could not be closed: %s", one_line(error))


def reason(message: str) -> str:
    """Return the line that matters in flytekit's account of an exception, which is its last."""
    lines = [line.strip() for line in message.splitlines() if line.strip()]
    return lines[-1] if lines else "unknown"
