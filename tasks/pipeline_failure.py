"""What a pipeline does when it fails: its MLflow run ends FAILED, with the reason, and is kept.

So does the run of the step that failed, which a lost pod could not close itself.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from flytekit import task
from flytekit.types.error.error import FlyteError

from siqvl.errors import one_line
from siqvl.recipe import Recipe
from siqvl.recipe.compute import Kind
from siqvl.tracking.runs import (
    DEFAULT_STORE,
    REASON,
    end_open,
    end_run,
    run_log,
    search,
    tracking_uri,
)
from tasks.contracts import Checkpoint, on_cluster
from tasks.failure_reasons import Account, Cause, accounts, sentence
from tasks.flyte_tags import ATTEMPT, COMPUTE, EXECUTION, execution, node_of
from tasks.resources import policy
from tasks.stopping import stoppable

if TYPE_CHECKING:
    from mlflow.entities import Run

logger = logging.getLogger(__name__)

MOST_REASONS = 3


@task(**policy(Kind.DATA))
@stoppable()
def close_run(recipe: Recipe, fresh: bool = False, err: FlyteError | None = None) -> None:
    """Close the parent run of this execution, and every stage run that a lost pod left open."""
    close(recipe, err)


@task(**policy(Kind.DATA))
@stoppable()
def close_rewards_run(
    checkpoint: Checkpoint, recipe: Recipe, fresh: bool = False, err: FlyteError | None = None
) -> None:
    """Do so for the workflow `rewards`: Flyte wants an input for each of a workflow's."""
    close(recipe, err)


def close(recipe: Recipe, err: FlyteError | None) -> None:
    """End the runs of this execution that are open, the failed ones with their reasons."""
    if on_cluster() and tracking_uri(recipe) == DEFAULT_STORE:
        return  # no run was opened
    of_execution = {EXECUTION: execution()}
    try:
        runs = search(recipe, of_execution)
        parents = [run for run in runs if run.data.tags.get("siqvl.kind") in ("pipeline", "sweep")]
        steps = [run for run in runs if run not in parents]
        reason = None if err is None else _told(recipe, err.message, steps)
        for run in parents[:1]:
            log = run_log(recipe, run.info.run_id)
            if reason is not None:
                log.tags({REASON: reason})
            end_run(log, "FAILED")
        # others were stopped because of it, or are of attempts that came to nothing
        end_open(recipe, of_execution, "KILLED")
    except Exception as error:  # what people must read is why the pipeline failed
        logger.warning("the MLflow run could not be closed: %s", one_line(error))


def _told(recipe: Recipe, message: str, steps: list[Run]) -> str:
    """The reason of a pipeline; the runs of the steps that failed are told theirs."""
    reasons: dict[str, None] = {}
    for account in accounts(message):
        found = _runs_of(account, steps)
        tags = found[0].data.tags if found else {}
        asked = tags.get(COMPUTE, account.pod)
        kind = Kind(asked) if asked in list(Kind) else None
        reason = sentence(account, _who(account, found), kind, recipe)
        reasons[reason] = None
        for run in found:
            log = run_log(recipe, run.info.run_id)
            if REASON not in run.data.tags:
                log.tags({REASON: reason})
            if run.info.status == "RUNNING":
                end_run(log, "FAILED")
    more = len(reasons) - MOST_REASONS
    return "; ".join(list(reasons)[:MOST_REASONS]) + (f"; and {more} more" if more > 0 else "")


def _runs_of(account: Account, steps: list[Run]) -> list[Run]:
    """The run of the step that failed; where its pod is not named, those that it may be.

    Flyte names the container, which is called as its pod or, of a pod template, by the template:
    after the kind of task.
    """
    if account.cause in (Cause.ERROR, Cause.UNKNOWN):
        return []  # it could say so itself, and has
    if node := node_of(account.pod):
        return [run for run in steps if run.data.tags.get("flyte.node") == node][:1]
    left = [run for run in steps if run.info.status == "RUNNING"]
    left = [run for run in left if run.data.tags.get(COMPUTE) == account.pod] or left
    last = max((_attempt(run) for run in left), default=0)
    return [run for run in left if _attempt(run) == last]


def _attempt(run: Run) -> int:
    return int(run.data.tags.get(ATTEMPT, "0"))


def _who(account: Account, found: list[Run]) -> str:
    if found:
        return " or ".join(sorted({run.info.run_name for run in found}))
    if node_of(account.pod):
        return f"the task of pod {account.pod}"
    return f"element {account.elements} of a map" if account.elements else "a task"
