"""MLflow runs by explicit id, so that a stage in another process or container finds its parent.

What is logged goes to an outbox on disk, and from there to the store in the background
(`siqvl/tracking/background.py`): one that is slow or away holds nothing up, and nothing is lost.

Nothing here touches MLflow's global "active run": a task may be retried, and two tasks may share a
process when a workflow runs locally.
"""

from __future__ import annotations

import hashlib
import logging
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from siqvl.errors import UserError, one_line, reason_of
from siqvl.recipe import Recipe
from siqvl.tracking import heartbeat
from siqvl.tracking.background import background
from siqvl.tracking.offline import TAG, experiment_id, is_offline, new_id, online_id
from siqvl.tracking.outbox import OutboxPlace, outbox_place
from siqvl.tracking.store import DEFAULT_STORE as DEFAULT_STORE
from siqvl.tracking.store import (
    HEARTBEAT,
    REPLACED,
    beat,
    forget_reason,
    is_missing_file,
    opened,
    run_store,
    within,
    without_password,
)
from siqvl.tracking.store import REASON as REASON
from siqvl.tracking.store import client as client
from siqvl.tracking.store import tracking_uri as tracking_uri
from siqvl.tracking.system_metrics import sampled
from siqvl.version import code_version

if TYPE_CHECKING:
    from mlflow.entities import Run

logger = logging.getLogger(__name__)

#: MLflow refuses longer values.
MAX_PARAM_LENGTH = 6000
MAX_TAG_LENGTH = 8000
#: Tags of a run whose recipe was changed by `--set`: how, and MLflow's own of its description.
CHANGES, NOTE = "siqvl.set", "mlflow.note.content"
#: Tags by which MLflow's pages know a run's name, its parent and its commit.
RUN_NAME, PARENT = "mlflow.runName", "mlflow.parentRunId"
GIT_COMMIT = "mlflow.source.git.commit"


@dataclass(frozen=True)
class RunLog:
    """Where one run's points go; picklable, so that training processes can log to it.

    Every method returns as soon as what it was given is on disk.
    """

    uri: str
    run_id: str
    outbox: OutboxPlace

    def metrics(self, values: dict[str, float], step: int = 0) -> None:
        """Log numbers on the step axis."""
        now = _now()
        self._log("metric", [[_key(name), float(v), now, step] for name, v in values.items()])

    def params(self, values: dict[str, Any]) -> None:
        """Log parameters; nested mappings become dotted keys."""
        flat = flatten(values).items()
        self._log("param", [[_key(name), str(value)[:MAX_PARAM_LENGTH]] for name, value in flat])

    def tags(self, values: dict[str, str]) -> None:
        """Set tags; those that are there already take the new value."""
        self._log("tag", [[_key(name), value[:MAX_TAG_LENGTH]] for name, value in values.items()])

    def artifact(self, path: Path, folder: str | None = None) -> None:
        """Add a file, or the content of a directory, to the run's artifacts."""
        place = background(self.outbox).outbox.keep(Path(path))
        self._log("artifact", [{"place": place, "folder": folder}])

    def text(self, content: str, name: str) -> None:
        """Keep a text as an artifact file."""
        self._log("text", [{"text": content, "name": name}])

    def inputs(self, datasets: list[dict[str, Any]]) -> None:
        """Say which data the run uses.

        Args:
            datasets: each the fields of MLflow's `Dataset`, and `tags`, a mapping.
        """
        self._log("inputs", [{"datasets": datasets}])

    def flush(self) -> bool:
        """Wait until the store has it all, at most as long as the recipe's patience."""
        return background(self.outbox).flush(self.outbox.patience, self.run_id)

    def _log(self, kind: str, entries: list[Any]) -> None:
        background(self.outbox).add(self.uri, self.run_id, [(kind, entry) for entry in entries])


def run_log(recipe: Recipe, run_id: str) -> RunLog:
    """Return the log of a run that exists already."""
    return RunLog(tracking_uri(recipe), run_id, outbox_place(recipe))


def start_run(
    recipe: Recipe, name: str, *, parent: str | None = None, tags: dict[str, str] | None = None
) -> RunLog:
    """Open a run in the recipe's experiment; the first call on a new store creates its tables.

    A run with a parent begins without the store if that is away.

    Raises:
        UserError: the store cannot be reached, and nothing has been logged to it before.
    """
    begin = _now()
    all_tags = {
        RUN_NAME: name,
        "siqvl.recipe": recipe.name,
        "siqvl.recipe_hash": recipe.hash(),
        **changes_tags(recipe),
        **_code_tags(),
        **(tags or {}),
    }
    if parent:
        all_tags[PARENT] = parent
    offline = new_id()
    uri, experiment = tracking_uri(recipe), recipe.tracking.experiment
    patience = recipe.tracking.patience_seconds

    def made() -> str:
        with opened(uri, "used", patience, run_store) as store:
            # By its tag the run is found, and not made twice, if this answer is lost.
            tags = all_tags | {TAG: offline, HEARTBEAT: beat(uri)}
            number = experiment_id(store, experiment)
            return store.create_run(number, start_time=begin, tags=tags).info.run_id

    try:
        log = run_log(recipe, within(patience, uri, made))
        background(log.outbox).sender(uri).notify(now=True)  # what waits may go now
    except UserError as error:
        if parent is None:
            raise
        logger.warning("run `%s` begins without its store: %s", name, error.message)
        log = run_log(recipe, offline)
        log._log("run", [{"experiment": experiment, "tags": all_tags, "time": begin}])
    heartbeat.begin(_opened(recipe, log)._replace(name=name, own=True))
    return log


def _opened(recipe: Recipe, log: RunLog) -> heartbeat.Open:
    return heartbeat.Open(log.uri, log.run_id, log.outbox, recipe.tracking.experiment)


def _code_tags() -> dict[str, str]:
    """Which code runs: MLflow's own tag is of a checkout, which an image has not."""
    version = code_version()
    commit = version.partition("+")[2]
    tags = {"siqvl.code_version": version, "siqvl.git_dirty": str("dirty" in commit).lower()}
    return tags | ({GIT_COMMIT: commit.partition(".")[0]} if commit else {})


def changes_tags(recipe: Recipe) -> dict[str, str]:
    """Return what tells the changes that a run's recipe was started with (`--set`), if any.

    MLflow shows a note, in Markdown, as the run's description.
    """
    if not recipe.changes:
        return {}
    note = "\n".join(f"    --set {change}" for change in recipe.changes)
    return {CHANGES: "\n".join(recipe.changes), NOTE: note}


def end_run(log: RunLog, status: str) -> None:
    """Close a run as FINISHED, FAILED or KILLED, once all that it logged is delivered.

    Where the store is away for longer than the recipe's patience, what is left stays on disk.
    """
    with heartbeat.ending(log.run_id):
        log._log("end", [{"status": status, "time": _now()}])
    if not log.flush():
        logger.warning(
            "MLflow store %s is away: what run %s logged waits in %s; `siqvl track sync %s` "
            "delivers it, and so does whatever logs from here next",
            *(without_password(log.uri), log.run_id, log.outbox.folder, log.outbox.folder),
        )


def find_runs(recipe: Recipe, tags: dict[str, str], *, status: str | None = None) -> list[RunLog]:
    """The runs of the recipe's experiment that have all of these tags, the newest first.

    Looking for them makes no store: a sqlite file that is not there has none.

    Raises:
        UserError: the store cannot be reached.
    """
    return [run_log(recipe, run.info.run_id) for run in search(recipe, tags, status=status)]


def search(recipe: Recipe, tags: dict[str, str], *, status: str | None = None) -> list[Run]:
    """As `find_runs`, with all that the store knows of them."""
    uri, patience = tracking_uri(recipe), recipe.tracking.patience_seconds
    if is_missing_file(uri):
        return []
    # MLflow has no way to write a quote in a filter
    wanted = [f"tags.`{name}` = '{value}'" for name, value in tags.items() if "'" not in value]
    wanted += [f"attributes.status = '{status}'"] if status else []

    def found() -> list[Run]:
        with opened(uri, "used", patience, run_store) as store:
            experiment = store.get_experiment_by_name(recipe.tracking.experiment)
            number = [experiment.experiment_id] if experiment else []
            return store.search_runs(number, " and ".join(wanted)) if number else []

    return [run for run in within(patience, uri, found) if tags.items() <= run.data.tags.items()]


def reopen(recipe: Recipe, name: str, run_id: str, tags: dict[str, str]) -> RunLog:
    """Go on in a run whose process is gone; why it failed then, it no longer says.

    Args:
        tags: of who goes on.

    Raises:
        UserError: the store cannot be reached, or does not have it.
    """
    uri, patience = tracking_uri(recipe), recipe.tracking.patience_seconds

    def reopened() -> None:
        with opened(uri, "used", patience, run_store) as store:
            known = _known(store, run_id)
            store.update_run(known, status="RUNNING")
            forget_reason(store, known, store.get_run(known).data.tags)

    within(patience, uri, reopened)
    log = run_log(recipe, run_id)
    log.tags(tags)
    heartbeat.begin(_opened(recipe, log)._replace(name=name, own=True))
    return log


def _known(store: Any, run_id: str) -> str:
    """The id by which a store knows a run, which may have begun without it."""
    return (online_id(store, run_id) if is_offline(run_id) else run_id) or run_id


def take_over(
    recipe: Recipe, run_id: str, tags: dict[str, str], *, by: str, earlier: str
) -> str | None:
    """Say on a run that another execution works on it now, and open it again.

    What it was of before stays in a tag of its own, and why it failed then goes. Several processes
    of the new execution may do so at once; one of an earlier execution takes nothing back.

    Args:
        by: which of the tags names the execution.
        earlier: the tag of the executions before, as words.

    Returns:
        The execution that the run was of; None where there was nothing to take over.

    Raises:
        UserError: the store cannot be reached, or does not have it.
    """
    uri, patience = tracking_uri(recipe), recipe.tracking.patience_seconds

    def taken() -> str | None:
        with opened(uri, "used", patience, run_store) as store:
            known = _known(store, run_id)
            found = store.get_run(known).data.tags
            before, others = found.get(by, ""), found.get(earlier, "").split()
            if not before or before == tags[by] or tags[by] in others:
                return None
            store.set_tag(known, earlier, " ".join(dict.fromkeys([*others, before])))
            store.set_tag(known, HEARTBEAT, beat(uri))
            store.update_run(known, status="RUNNING")
            forget_reason(store, known, found)
            for name, value in sorted(tags.items(), key=lambda item: item[0] == by):
                store.set_tag(known, name, value)  # the execution last: it ends this
            return before

    return within(patience, uri, taken)


def catch_up(recipe: Recipe) -> None:
    """Have the store hear first what processes that are gone have left, if it is there."""
    place = outbox_place(recipe)
    background(place).catch_up(tracking_uri(recipe), place.patience)


def end_open(recipe: Recipe, tags: dict[str, str], status: str, reason: str | None = None) -> None:
    """Close all runs with these tags that are still open: their processes could not do it.

    A store that is away is left alone; what works goes on.

    Args:
        reason: why they ended so, where somebody knows.
    """
    for run in _open(recipe, tags):
        log = run_log(recipe, run.info.run_id)
        if reason is not None:
            log.tags({REASON: reason})
        end_run(log, status)


def replace_attempts(recipe: Recipe, tags: dict[str, str], number_tag: str, number: int) -> None:
    """Close as KILLED the runs with these tags of earlier attempts at what attempt `number` does.

    Their processes are gone, or soon will be. What one that still lives says of its run's end, or
    of its life, changes nothing any more; and it leaves the runs of later attempts alone.

    Args:
        number_tag: of a run, which says the attempt that it is of, from 0.
    """
    for run in _open(recipe, tags):
        earlier = int(run.data.tags.get(number_tag, "0"))
        if earlier <= number:
            log = run_log(recipe, run.info.run_id)
            why = f"the pod of attempt {earlier + 1} was lost, and attempt {number + 1} went on"
            log.tags({REPLACED: str(number)} | ({REASON: why} if earlier < number else {}))
            end_run(log, "KILLED")


def _open(recipe: Recipe, tags: dict[str, str]) -> list[Run]:
    try:
        return search(recipe, tags, status="RUNNING")
    except UserError as error:
        logger.warning("runs that may still be open are left as they are: %s", one_line(error))
        return []


@contextmanager
def stage_run(
    recipe: Recipe, name: str, parent: str | None, tags: dict[str, str], again: str | None = None
) -> Iterator[RunLog]:
    """A child run that ends in the true state, and its parent with it when that is a failure.

    A retry that succeeds lets the pipeline reach its last task, which closes the parent FINISHED.

    Args:
        again: the run to go on in, in place of a new one, where the store has it.
    """
    log = None
    if again is not None:
        with suppress(UserError):
            log = reopen(recipe, name, again, tags)
    log = log or start_run(recipe, name, parent=parent, tags=tags)
    parents = [run_log(recipe, parent)] if parent else []
    with (
        part_of_runs(recipe, log, *parents),
        sampled(log.metrics, recipe.tracking.system_metrics_seconds),
    ):
        yield log
    end_run(log, "FINISHED")


@contextmanager
def part_of_runs(recipe: Recipe, *logs: RunLog) -> Iterator[None]:
    """Work on runs: their hearts beat meanwhile, and they end as FAILED, and say why, if it fails.

    Work that is stopped ends those as KILLED that this process has begun: a pod of a pipeline may
    be followed by another.
    """
    with heartbeat.shared(*[_opened(recipe, log) for log in logs]):
        try:
            yield
        except BaseException as error:
            own = {run.run_id for run in heartbeat.own_runs()}
            for log in logs:
                if isinstance(error, Exception):
                    log.tags({REASON: reason_of(error)})
                    end_run(log, "FAILED")
                elif log.run_id in own:
                    end_run(log, "KILLED")
            raise


def end_own_runs() -> None:
    """Close as KILLED all runs that this process has begun and not ended."""
    for run in heartbeat.own_runs():
        end_run(RunLog(run.uri, run.run_id, run.outbox), "KILLED")


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
    """The name in letters, digits and `_-./: `, which is all that MLflow allows.

    Names that this changes end in a hash of what they were, so that no two become one.
    """
    allowed = "".join(c if c.isalnum() or c in "_-./: " else "_" for c in name)
    if allowed == name:
        return name
    return f"{allowed}-{hashlib.blake2s(name.encode(), digest_size=4).hexdigest()}"


def _now() -> int:
    """Milliseconds since 1970."""
    return int(time.time() * 1000)
