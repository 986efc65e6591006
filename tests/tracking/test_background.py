"""Delivery in the background, to a real sqlite store that is away when a test says so."""

import logging
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest
from mlflow.exceptions import MlflowException
from mlflow.protos.databricks_pb2 import TEMPORARILY_UNAVAILABLE

from siqvl.errors import UserError
from siqvl.recipe import Recipe
from siqvl.tracking import background as background_module
from siqvl.tracking import store as store_module
from siqvl.tracking import sync as sync_module
from siqvl.tracking.background import background
from siqvl.tracking.offline import TAG, is_offline
from siqvl.tracking.outbox import NAME, Outbox, Stream, outbox_place
from siqvl.tracking.runs import RunLog, client, end_open, end_run, stage_run, start_run
from siqvl.tracking.sync import sync

STEPS = 300


class Store:
    """Stands before the real client: away at will, or cut off after the real request was done."""

    def __init__(self, real: Callable[[str], object]) -> None:
        self.real = real
        self.away = False
        self.slow = 0.0  # seconds before it answers
        self.deaf = 0  # requests whose answer is lost
        self.requests: Counter = Counter()

    def __call__(self, uri: str, patience: float | None = None) -> object:
        return _Client(self, self.real(uri))


class _Client:
    def __init__(self, store: Store, real: object) -> None:
        self._store, self._client = store, real

    def __getattr__(self, name: str) -> Callable | str:
        if name == "tracking_uri":
            return self._client.tracking_uri

        def call(*arguments, **options):
            if self._store.away:
                raise MlflowException("nobody there", error_code=TEMPORARILY_UNAVAILABLE)
            time.sleep(self._store.slow)
            self._store.requests[name] += 1
            answer = getattr(self._client, name)(*arguments, **options)
            if self._store.deaf and name == "log_batch":
                self._store.deaf -= 1
                raise ConnectionError("the answer was lost")
            return answer

        return call


@pytest.fixture
def store(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Store:
    made = Store(client)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(background_module, "run_store", made)
    monkeypatch.setattr(store_module, "client", made)
    monkeypatch.setattr(sync_module, "client", made)
    monkeypatch.setattr(background_module, "FIRST_WAIT", 0.05)
    monkeypatch.setattr(background_module, "GATHER", 0.05)
    return made


@pytest.fixture(scope="module")
def _store_file(tmp_path_factory: pytest.TempPathFactory, small_recipe) -> str:
    return f"sqlite:///{tmp_path_factory.mktemp('store')}/mlflow.db"


@pytest.fixture
def recipe(tmp_path: Path, small_recipe, _store_file: str) -> Recipe:
    tracking = {"experiment": "test", "uri": _store_file, "patience_seconds": 0.3}
    return small_recipe(tmp_path, tracking=tracking)


def curve(recipe: Recipe, run_id: str, name: str = "loss") -> list[tuple[int, float]]:
    history = client(recipe.tracking.uri or "").get_metric_history(run_id, name)
    return [(point.step, point.value) for point in history]


def found(recipe: Recipe, name: str) -> str:
    store = client(recipe.tracking.uri or "")
    experiment = store.get_experiment_by_name("test")
    assert experiment is not None
    (run,) = store.search_runs([experiment.experiment_id], f"attributes.run_name = '{name}'")
    return run.info.run_id


def waiting(recipe: Recipe) -> list[Stream]:
    outbox = Outbox(outbox_place(recipe).folder / NAME)
    try:
        return outbox.streams()
    finally:
        outbox.close()


def log_points(log: RunLog, steps: range) -> None:
    for step in steps:
        log.metrics({"loss": 1 / (step + 1), "rate": 0.5}, step=step)


def wanted(steps: range) -> list[tuple[int, float]]:
    return [(step, 1 / (step + 1)) for step in steps]


def test_points_are_delivered_once_in_few_requests(store: Store, recipe: Recipe) -> None:
    log = start_run(recipe, "plain")
    log_points(log, range(STEPS))
    end_run(log, "FINISHED")
    assert curve(recipe, log.run_id) == wanted(range(STEPS))
    assert store.requests["log_batch"] <= 20
    assert waiting(recipe) == []


def test_logging_does_not_wait_for_a_store_that_is_away(store: Store, recipe: Recipe) -> None:
    log = start_run(recipe, "fast")
    store.away = True
    begin = time.monotonic()
    log_points(log, range(STEPS))
    assert time.monotonic() - begin < 1.0  # a request that fails alone takes as long
    store.away = False
    assert log.flush()


def test_an_outage_in_a_run_loses_nothing(store: Store, recipe: Recipe, caplog) -> None:
    with stage_run(recipe, "outage", None, {}) as log:
        log_points(log, range(100))
        store.away = True
        log_points(log, range(100, 200))
        time.sleep(0.3)
        store.away = False
        log_points(log, range(200, STEPS))
    assert curve(recipe, log.run_id) == wanted(range(STEPS))
    assert client(log.uri).get_run(log.run_id).info.status == "FINISHED"
    said = [record.message for record in caplog.records if record.levelno == logging.WARNING]
    assert sum("does not answer" in line for line in said) == 1
    assert sum("answers again" in line for line in said) == 1


def test_an_answer_that_was_lost_doubles_nothing(store: Store, recipe: Recipe) -> None:
    with stage_run(recipe, "deaf", None, {}) as log:
        store.deaf = 3
        log_points(log, range(STEPS))
        log.params({"a": 1})
        log.tags({"b": "c"})
    assert curve(recipe, log.run_id) == wanted(range(STEPS))
    assert curve(recipe, log.run_id, "rate") == [(step, 0.5) for step in range(STEPS)]


def test_a_run_that_begins_and_ends_without_the_store_is_delivered_by_sync(
    store: Store, recipe: Recipe, tmp_path: Path
) -> None:
    parent = start_run(recipe, "parent of two")
    store.away = True
    begin = time.time() * 1000
    with stage_run(recipe, "child", parent.run_id, {"siqvl.stage": "dpo"}) as log:
        assert is_offline(log.run_id)
        log_points(log, range(10))
        log.params({"lr": 0.1})
        log.text("hello", "notes/note.txt")
    folder = outbox_place(recipe).folder
    assert background(log.outbox).close()  # as when the process ends
    assert {one.run for one in waiting(recipe)} == {log.run_id}

    store.away = False
    (synced,) = sync(folder)
    assert synced.left == ""
    run = client(log.uri).get_run(found(recipe, "child"))
    assert run.info.status == "FINISHED"
    assert begin - 1000 < run.info.start_time <= run.info.end_time < begin + 60_000
    assert run.data.params == {"lr": "0.1"}
    assert run.data.tags["mlflow.parentRunId"] == parent.run_id
    assert run.data.tags[TAG] == log.run_id
    assert curve(recipe, run.info.run_id) == wanted(range(10))
    files = client(log.uri).list_artifacts(run.info.run_id, "notes")
    assert [file.path for file in files] == ["notes/note.txt"]
    assert waiting(recipe) == []
    assert list(sync(folder)) == []


def test_a_pipeline_does_not_begin_without_its_store(store: Store, recipe: Recipe) -> None:
    store.away = True
    with pytest.raises(UserError, match="cannot be used"):
        start_run(recipe, "never")


def test_the_patience_of_an_outage_is_spent_once(store: Store, recipe: Recipe) -> None:
    log = start_run(recipe, "patient")
    store.away = True
    begin = time.monotonic()
    for _ in range(5):
        log.metrics({"loss": 1.0})
        assert not log.flush()
    assert 0.3 <= time.monotonic() - begin < 1.2
    store.away = False
    end = time.monotonic() + 20
    while not log.flush():  # it is tried again now and then, whoever waits
        assert time.monotonic() < end
        time.sleep(0.05)


def test_a_store_that_is_back_and_slow_is_waited_for(store: Store, recipe: Recipe) -> None:
    log = start_run(recipe, "slow")
    store.away = True
    log.metrics({"loss": 1.0})
    deadline = time.monotonic() + 20
    while not background(log.outbox).sender(log.uri).failures:  # it has yet to find out
        assert time.monotonic() < deadline
        time.sleep(0.01)
    store.away, store.slow = False, 2 * log.outbox.patience
    assert log.flush()
    assert curve(recipe, log.run_id) == [(0, 1.0)]


def test_what_a_store_refuses_is_kept_and_holds_nothing_up(store: Store, recipe: Recipe) -> None:
    log = start_run(recipe, "refused")
    log.params({"lr": 1})
    log.flush()
    log.params({"lr": 2, "depth": 3})
    log.metrics({"loss": 1.0}, step=1)
    assert log.flush()
    end_run(log, "FINISHED")
    run = client(log.uri).get_run(log.run_id)
    assert run.data.params == {"lr": "1", "depth": "3"}
    assert curve(recipe, log.run_id) == [(1, 1.0)]
    ((of, kind, content, reason),) = background(log.outbox).outbox.refusals()
    assert (of, kind, content) == (log.run_id, "param", ["lr", "2"])
    assert "lr" in reason


def test_runs_left_open_are_let_be_while_the_store_is_away(store: Store, recipe: Recipe) -> None:
    log = start_run(recipe, "open", tags={"of": "this"})
    store.away = True
    end_open(recipe, {"of": "this"}, "KILLED")
    store.away = False
    assert client(log.uri).get_run(log.run_id).info.status == "RUNNING"
    end_open(recipe, {"of": "this"}, "KILLED")
    assert client(log.uri).get_run(log.run_id).info.status == "KILLED"


def test_a_run_that_was_deleted_holds_nothing_up(store: Store, recipe: Recipe, caplog) -> None:
    log = start_run(recipe, "deleted")
    gone = RunLog(log.uri, "0" * 32, log.outbox)
    log_points(gone, range(5))
    assert gone.flush()  # a round of its own, and so several, however quick the machine
    log_points(gone, range(5, 50))
    log_points(log, range(3))
    assert gone.flush()
    assert log.flush()
    assert curve(recipe, log.run_id) == wanted(range(3))
    assert len(background(log.outbox).outbox.refusals()) == 2 * 50
    assert caplog.text.count("MLflow refuses") == 1
