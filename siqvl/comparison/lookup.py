"""Find a run by its name, its id, the beginning of its id, or by the model it has registered."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from difflib import get_close_matches
from typing import TYPE_CHECKING

from siqvl.errors import UserError
from siqvl.registry.versions import MODELS, RUN, no_model, version_named
from siqvl.tracking.store import is_missing_file, opened, without_password

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Run

SHORTEST_PREFIX = 4  # of an id
SHOWN_ID = 8
NEAR = 5  # names in an error
#: MLflow answers a search in pages of at most so many.
PAGE = 1000


@contextmanager
def open_store(uri: str) -> Iterator[MlflowClient]:
    """A client of a store that is there; what goes wrong with it is one line.

    Raises:
        UserError: there is none, or it does not answer.
    """
    if is_missing_file(uri):
        raise UserError(
            f"there is no MLflow store {without_password(uri)}: name that of the recipe with "
            "--tracking-uri or MLFLOW_TRACKING_URI"
        )
    with opened(uri, "read") as store:
        yield store


def find_run(store: MlflowClient, experiment: str, wanted: str) -> Run:
    """Return the run that is meant.

    Args:
        wanted: a run's id, its name, or at least the first four characters of its id; or a
            registered model, `models:/siqvl-tiny@champion` or `models:/siqvl-tiny/3`, for the
            training that made it.

    Raises:
        UserError: there is no such run, or more than one.
    """
    if wanted.startswith(MODELS):
        return _training_of(store, wanted)
    runs = all_runs(store, experiment)
    matches = (
        [run for run in runs if run.info.run_id == wanted]
        or [run for run in runs if run.info.run_name == wanted]
        or [
            run
            for run in runs
            if len(wanted) >= SHORTEST_PREFIX and run.info.run_id.startswith(wanted)
        ]
    )
    if len(matches) == 1:
        return matches[0]
    if matches:
        raise UserError(
            f"{len(matches)} runs of experiment `{experiment}` are called `{wanted}`, give one's "
            f"id: {_listed([_label(run) for run in matches])}"
        )
    raise UserError(f"experiment `{experiment}` has no run `{wanted}`{_near(wanted, runs)}")


def _training_of(store: MlflowClient, model: str) -> Run:
    """The run that trained a version of a registered model.

    Raises:
        UserError: there is no such version.
    """
    from mlflow.exceptions import MlflowException

    version = version_named(store, model)
    try:
        return store.get_run(version.tags.get(RUN) or version.run_id or "")
    except MlflowException as error:
        raise no_model(model, error) from None


def all_runs(store: MlflowClient, experiment: str) -> list[Run]:
    """Return every run of an experiment, the newest first.

    Raises:
        UserError: the store has no such experiment.
    """
    found = store.get_experiment_by_name(experiment)
    if found is None:
        others = _listed([f"`{one.name}`" for one in store.search_experiments()])
        raise UserError(
            f"the MLflow store has no experiment `{experiment}`, but {others}: name one with "
            "--experiment"
        )
    return search(store, found.experiment_id)


def search(store: MlflowClient, experiment_id: str, tags: str = "") -> list[Run]:
    """Return the runs of an experiment that a filter lets pass, the newest first."""
    runs: list[Run] = []
    token: str | None = None
    while True:
        page = store.search_runs([experiment_id], tags, max_results=PAGE, page_token=token)
        runs += page
        token = page.token
        if not token:
            return runs


def _near(wanted: str, runs: list[Run]) -> str:
    """What might have been meant, for an error."""
    if not runs:
        return ": it has none at all"
    names = dict.fromkeys([run.info.run_name for run in runs])
    ids = [run.info.run_id for run in runs]
    close = get_close_matches(wanted, names, n=NEAR, cutoff=0.5)
    close += [name for name in names if wanted in name and name not in close]
    close += get_close_matches(wanted, [id[: len(wanted)] for id in ids], n=1, cutoff=0.7)
    if close:
        return f"; near it are {_listed([f'`{one}`' for one in close])}"
    return f"; its newest are {_listed([_label(run) for run in runs])}"


def _label(run: Run) -> str:
    return f"{run.info.run_id[:SHOWN_ID]} `{run.info.run_name}`"


def _listed(names: list[str]) -> str:
    return ", ".join(names[:NEAR]) + (", …" if len(names) > NEAR else "")
