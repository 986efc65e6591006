"""Runs that begin while the store is away: they get a name of their own until it is back.

The store gives a run its id, so until then a run goes by an id that says so; the run is made with
its first delivery, and is found by that id in a tag.
"""

from __future__ import annotations

import uuid
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mlflow import MlflowClient

    from siqvl.tracking.server.rest_store import RestStore

PREFIX = "offline-"
TAG = "siqvl.offline_id"
#: Has MLflow's pages open an experiment on its runs; its own default is the page for LLM traces.
TRAINING_VIEW = {"mlflow.experimentKind": "custom_model_development"}


def new_id() -> str:
    """An id for a run that is not in the store yet."""
    return PREFIX + uuid.uuid4().hex


def is_offline(run_id: str) -> bool:
    return run_id.startswith(PREFIX)


def online_id(store: MlflowClient | RestStore, run_id: str) -> str | None:
    """The id that the store has given the run since, if it has it."""
    experiments = [one.experiment_id for one in store.search_experiments()]
    found = store.search_runs(experiments, f"tags.`{TAG}` = '{run_id}'", max_results=1)
    return found[0].info.run_id if found else None


def create(store: MlflowClient | RestStore, run_id: str, content: dict[str, Any]) -> str:
    """Make the run as it would have been made when it began.

    Args:
        content: `experiment`, `tags` and `time`, in milliseconds.
    """
    tags = content["tags"] | {TAG: run_id}
    experiment = experiment_id(store, content["experiment"])
    return store.create_run(experiment, start_time=content["time"], tags=tags).info.run_id


def experiment_id(store: MlflowClient | RestStore, name: str) -> str:
    """The experiment of a name, made if it is not there."""
    found = store.get_experiment_by_name(name)
    if found:
        return found.experiment_id
    try:
        return store.create_experiment(name, tags=TRAINING_VIEW)
    except Exception:
        found = store.get_experiment_by_name(name)  # another process was quicker
        if not found:
            raise
        return found.experiment_id
