"""MLflow runs by explicit id, so that a stage in another process or container finds its parent.

Nothing here touches MLflow's global "active run": a task may be retried, and two tasks may share a
process when a workflow runs locally.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from siqvl.errors import UserError
from siqvl.recipe import Recipe
from siqvl.version import code_version

if TYPE_CHECKING:
    from mlflow import MlflowClient

DEFAULT_STORE = "sqlite:///mlflow.db"
#: Has MLflow's pages open an experiment on its runs; its own default is the page for LLM traces.
TRAINING_VIEW = {"mlflow.experimentKind": "custom_model_development"}
#: MLflow refuses longer parameter values and larger batches.
MAX_PARAM_LENGTH = 6000
MAX_TAG_LENGTH = 8000
MAX_BATCH = 100


@dataclass(frozen=True)
class RunLog:
    """Where one run's points go; picklable, so that training processes can log to it."""

    uri: str
    run_id: str

    def metrics(self, values: dict[str, float], step: int = 0) -> None:
        """Log numbers on the step axis."""
        from mlflow.entities import Metric

        now = int(time.time() * 1000)
        points = [Metric(_key(name), float(value), now, step) for name, value in values.items()]
        client(self.uri).log_batch(self.run_id, metrics=points)

    def params(self, values: dict[str, Any]) -> None:
        """Log parameters; nested mappings become dotted keys."""
        from mlflow.entities import Param

        flat = [
            Param(_key(name), str(value)[:MAX_PARAM_LENGTH])
            for name, value in flatten(values).items()
        ]
        for start in range(0, len(flat), MAX_BATCH):
            client(self.uri).log_batch(self.run_id, params=flat[start : start + MAX_BATCH])

    def tags(self, values: dict[str, str]) -> None:
        """Set tags; those that are there already take the new value."""
        from mlflow.entities import RunTag

        tags = [RunTag(_key(name), value[:MAX_TAG_LENGTH]) for name, value in values.items()]
        client(self.uri).log_batch(self.run_id, tags=tags)

    def artifact(self, path: Path, folder: str | None = None) -> None:
        """Copy a file, or the content of a directory, to the run's artifacts."""
        if path.is_dir():
            client(self.uri).log_artifacts(self.run_id, str(path), folder)
        else:
            client(self.uri).log_artifact(self.run_id, str(path), folder)

    def text(self, content: str, name: str) -> None:
        """Keep a text as an artifact file."""
        client(self.uri).log_text(self.run_id, content, name)


def tracking_uri(recipe: Recipe) -> str:
    """The recipe's store, else MLFLOW_TRACKING_URI, else a sqlite file in the working directory."""
    return recipe.tracking.uri or os.environ.get("MLFLOW_TRACKING_URI") or DEFAULT_STORE


def client(uri: str) -> MlflowClient:
    """A client of one store."""
    from mlflow import MlflowClient

    return MlflowClient(tracking_uri=uri)


def start_run(
    recipe: Recipe, name: str, *, parent: str | None = None, tags: dict[str, str] | None = None
) -> RunLog:
    """Open a run in the recipe's experiment; the first call on a new store creates its tables.

    Call it once before stages start in parallel: processes that race to create a sqlite store's
    tables crash each other.

    Raises:
        UserError: the store cannot be reached.
    """
    from mlflow.utils.mlflow_tags import MLFLOW_PARENT_RUN_ID, MLFLOW_RUN_NAME

    uri = tracking_uri(recipe)
    all_tags = {
        MLFLOW_RUN_NAME: name,
        "siqvl.recipe": recipe.name,
        "siqvl.recipe_hash": recipe.hash(),
        "siqvl.code_version": code_version(),
        **(tags or {}),
    }
    if parent:
        all_tags[MLFLOW_PARENT_RUN_ID] = parent
    with _store(uri) as store:
        experiment = store.get_experiment_by_name(recipe.tracking.experiment)
        experiment_id = (
            experiment.experiment_id
            if experiment
            else store.create_experiment(recipe.tracking.experiment, tags=TRAINING_VIEW)
        )
        run = store.create_run(experiment_id, tags=all_tags)
    return RunLog(uri, run.info.run_id)


@contextmanager
def _store(uri: str) -> Iterator[MlflowClient]:
    """A client for a first use of a store, whose failure is one line."""
    from mlflow.exceptions import MlflowException

    try:
        yield client(uri)
    except (MlflowException, OSError) as error:
        raise UserError(
            f"MLflow store {_without_password(uri)} cannot be used: {str(error).splitlines()[0]}"
        ) from None


def end_run(log: RunLog, status: str) -> None:
    """Close a run as FINISHED, FAILED or KILLED."""
    client(log.uri).set_terminated(log.run_id, status)


def find_runs(recipe: Recipe, tags: dict[str, str], *, status: str | None = None) -> list[RunLog]:
    """The runs of the recipe's experiment that have all of these tags, the newest first.

    Looking for them makes no store: a sqlite file that is not there has none.

    Raises:
        UserError: the store cannot be reached.
    """
    uri = tracking_uri(recipe)
    file = Path(uri.removeprefix("sqlite:///").partition("?")[0])
    if uri.startswith("sqlite:///") and not file.exists():
        return []
    # MLflow has no way to write a quote in a filter
    wanted = [f"tags.`{name}` = '{value}'" for name, value in tags.items() if "'" not in value]
    wanted += [f"attributes.status = '{status}'"] if status else []
    with _store(uri) as store:
        experiment = store.get_experiment_by_name(recipe.tracking.experiment)
        if experiment is None:
            return []
        found = store.search_runs([experiment.experiment_id], " and ".join(wanted))
    return [RunLog(uri, run.info.run_id) for run in found if tags.items() <= run.data.tags.items()]


def end_open(recipe: Recipe, tags: dict[str, str], status: str) -> None:
    """Close all runs with these tags that are still open: their processes could not do it."""
    for log in find_runs(recipe, tags, status="RUNNING"):
        end_run(log, status)


@contextmanager
def stage_run(
    recipe: Recipe, name: str, parent: str | None, tags: dict[str, str]
) -> Iterator[RunLog]:
    """A child run that ends in the true state, and its parent with it when that is a failure.

    A retry that succeeds lets the pipeline reach its last task, which closes the parent FINISHED.
    """
    log = start_run(recipe, name, parent=parent, tags=tags)
    with failure_ends(log, *([RunLog(log.uri, parent)] if parent else [])):
        yield log
    end_run(log, "FINISHED")


@contextmanager
def failure_ends(*logs: RunLog) -> Iterator[None]:
    """Close the runs as FAILED or KILLED when what is inside fails; leave them open otherwise."""
    try:
        yield
    except BaseException as error:
        for log in logs:
            end_run(log, "KILLED" if isinstance(error, KeyboardInterrupt) else "FAILED")
        raise


def flatten(values: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """`{"a": {"b": 1}, "c": [2]}` -> `{"a.b": 1, "c.0": 2}`."""
    flat: dict[str, Any] = {}
    for key, value in values.items():
        name = f"{prefix}{key}"
        if isinstance(value, list):
            value = {str(index): item for index, item in enumerate(value)}
        if isinstance(value, dict) and value:
            flat |= flatten(value, f"{name}.")
        else:
            flat[name] = value
    return flat


def _key(name: str) -> str:
    """MLflow allows letters, digits and `_-./: ` in keys."""
    return "".join(c if c.isalnum() or c in "_-./: " else "_" for c in name)


def _without_password(uri: str) -> str:
    """`scheme://user:secret@host` -> `scheme://user:***@host`."""
    import re

    return re.sub(r"(://[^/:@]*):[^@/]*@", r"\1:***@", uri)
