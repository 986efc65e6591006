"""What a pipeline does when it fails: its MLflow run ends FAILED, with the reason, and is kept."""

from __future__ import annotations

from flytekit import task
from flytekit.types.error.error import FlyteError

from siqvl.compute import Kind
from siqvl.recipe import Recipe
from siqvl.tracking.runs import DEFAULT_STORE, end_open_children, end_run, find_run, tracking_uri
from tasks.contracts import on_cluster
from tasks.resources import policy
from tasks.tracked import EXECUTION, execution

REASON = "siqvl.error"


@task(**policy(Kind.DATA))
def close_run(recipe: Recipe, err: FlyteError | None = None) -> None:
    """Close the parent run of this execution, and every stage run that a lost pod left open."""
    if on_cluster() and tracking_uri(recipe) == DEFAULT_STORE:
        return  # no run was opened
    log = find_run(recipe, {EXECUTION: execution(), "siqvl.kind": "pipeline"})
    if log is None:
        return
    if err is not None:
        log.tags({REASON: reason(err.message)})
    end_open_children(log, "FAILED")
    end_run(log, "FAILED")


def reason(message: str) -> str:
    """The one line that matters in flytekit's account of an exception, which is its last."""
    lines = [line.strip() for line in message.splitlines() if line.strip()]
    return lines[-1] if lines else "unknown"
