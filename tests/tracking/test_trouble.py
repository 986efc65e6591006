"""Servers that are overloaded, silent or broken, and entries that they do not take."""

import logging
import os
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from siqvl.errors import UserError
from siqvl.recipe import Recipe
from siqvl.tracking import background as background_module
from siqvl.tracking import heartbeat
from siqvl.tracking.background import background
from siqvl.tracking.offline import is_offline
from siqvl.tracking.outbox import NAME
from siqvl.tracking.runs import RunLog, end_open, end_run, run_log, stage_run, start_run
from siqvl.tracking.store import HTTP_LIMITS, TIMEOUT, waited
from tests.loopback.poor_server import PoorServer, poor_server

PATIENCE = 2.0
POINTS = 10_000


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[PoorServer]:
    monkeypatch.setattr(background_module, "FIRST_WAIT", 0.05)
    monkeypatch.setattr(background_module, "GATHER", 0.05)
    for name in (*HTTP_LIMITS, TIMEOUT):
        monkeypatch.delenv(name, raising=False)
    waited.clear()
    with poor_server() as made:
        yield made


@pytest.fixture
def recipe(tmp_path: Path, small_recipe, server: PoorServer) -> Recipe:
    tracking: dict = {"experiment": "test", "uri": server.uri, "patience_seconds": PATIENCE}
    tracking["system_metrics_seconds"] = None
    return small_recipe(tmp_path, tracking=tracking)


def log_points(log: RunLog, steps: range) -> None:
    for step in steps:
        log.metrics({"loss": 1 / (step + 1)}, step=step)


def once(steps: range) -> Counter:
    return Counter({("loss", step): 1 for step in steps})


def test_an_entry_that_cannot_be_sent_stops_no_other(recipe: Recipe, server: PoorServer) -> None:
    """A step that no number of the protocol can hold is the client's own error, not the store's."""
    log = start_run(recipe, "one of many")
    log_points(log, range(POINTS // 2))
    log.metrics({"loss": 1.0}, step=1 << 70)
    log_points(log, range(POINTS // 2, POINTS))
    end_run(log, "FINISHED")
    assert server.points == once(range(POINTS))
    assert server.runs[log.run_id]["status"] == "FINISHED"
    ((run, kind, content, reason),) = background(log.outbox).outbox.refusals()
    assert (run, kind, content[3]) == (log.run_id, "metric", 1 << 70)
    assert reason
    assert server.requests["runs/log-batch"] < 60


def test_an_entry_on_which_the_server_breaks_stops_no_other(
    recipe: Recipe, server: PoorServer
) -> None:
    def breaks(path: str, body: dict) -> int | None:
        keys = {metric["key"] for metric in body.get("metrics", [])}
        return 500 if "poison" in keys else None

    server.trouble = breaks
    # it takes three rounds to tell the entry from the server: no measure of time here
    tracking = recipe.tracking.model_copy(update={"patience_seconds": 60.0})
    log = start_run(recipe.model_copy(update={"tracking": tracking}), "poisoned")
    log_points(log, range(1000))
    log.metrics({"poison": 1.0}, step=3)
    log_points(log, range(1000, 2000))
    end_run(log, "FINISHED")
    assert server.points == once(range(2000))
    ((_, _, content, reason),) = background(log.outbox).outbox.refusals()
    assert content[0] == "poison"
    assert "500" in reason


def test_a_run_that_is_forbidden_stops_no_other(recipe: Recipe, server: PoorServer) -> None:
    mine, yours = start_run(recipe, "mine"), start_run(recipe, "yours")
    server.trouble = lambda path, body: 403 if body.get("run_id") == yours.run_id else None
    yours.metrics({"other": 1.0})
    log_points(mine, range(100))
    assert mine.flush()
    assert server.points == once(range(100))
    begin = time.monotonic()
    assert not yours.flush()
    assert time.monotonic() - begin < 2 * PATIENCE
    log_points(mine, range(100, 200))
    assert mine.flush()
    assert time.monotonic() - begin < 2 * PATIENCE
    server.trouble = lambda path, body: None
    assert yours.flush()  # it was kept
    assert server.points == once(range(200)) + Counter({("other", 0): 1})


def test_a_server_that_is_overloaded_for_a_while_gets_every_point_once(
    recipe: Recipe, server: PoorServer, caplog: pytest.LogCaptureFixture
) -> None:
    log = start_run(recipe, "overloaded")
    until = time.monotonic() + 1.0
    server.trouble = lambda path, body: 429 if time.monotonic() < until else None
    log_points(log, range(2000))
    begin = time.monotonic()
    end_run(log, "FINISHED")
    assert time.monotonic() - begin < 2 * PATIENCE
    assert server.points == once(range(2000))
    assert server.runs[log.run_id]["status"] == "FINISHED"
    assert background(log.outbox).outbox.refusals() == []
    assert caplog.text.count("does not answer") == 1


@pytest.mark.parametrize("status", [429, 503, 0])
def test_a_task_begins_and_ends_within_its_patience(
    recipe: Recipe, server: PoorServer, status: int
) -> None:
    """`Retry-After: 3600`, and a server that takes a connection and never answers (0)."""
    parent = start_run(recipe, "parent")
    server.trouble = lambda path, body: status
    begin = time.monotonic()
    end_open(recipe, {"a": "b"}, "KILLED")
    with stage_run(recipe, "child", parent.run_id, {}) as log:
        assert is_offline(log.run_id)
        log_points(log, range(10))
    assert time.monotonic() - begin < PATIENCE + 3.0  # every further wait is of a second
    server.trouble = lambda path, body: None
    deadline = time.monotonic() + 20
    while not log.flush():
        assert time.monotonic() < deadline
        time.sleep(0.05)
    assert server.points == once(range(10))


def test_a_pipeline_does_not_begin_at_a_silent_server(recipe: Recipe, server: PoorServer) -> None:
    server.trouble = lambda path, body: 0
    begin = time.monotonic()
    with pytest.raises(UserError, match=r"MLflow store http.* (gave no answer|cannot be used)"):
        start_run(recipe, "never")
    assert time.monotonic() - begin < PATIENCE + 1.0


def test_a_run_whose_making_was_not_answered_is_made_once(
    recipe: Recipe, server: PoorServer
) -> None:
    parent = start_run(recipe, "parent")
    made: list[str] = []

    def deaf(path: str, body: dict) -> int | None:
        if path == "runs/create" and not made:
            with server.lock:
                made.append(server.answer(path, body)["run"]["info"]["run_id"])
            return 503
        return None

    server.trouble = deaf
    log = start_run(recipe, "child", parent=parent.run_id)
    (tag,) = [tag for tag in server.runs[made[0]]["tags"] if tag["key"] == "siqvl.offline_id"]
    assert tag["value"] == log.run_id  # by which delivery finds it


def test_a_damaged_outbox_holds_no_task_up(
    recipe: Recipe,
    server: PoorServer,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for part in (
        "_beat",
        "_look",
    ):  # else it opens the outbox while that is whole
        monkeypatch.setattr(heartbeat, part, lambda run: None)
    parent = start_run(recipe, "parent")
    background(parent.outbox).close()
    (parent.outbox.folder / NAME).write_bytes(os.urandom(50_000))
    log = run_log(recipe, parent.run_id)
    with caplog.at_level(logging.WARNING):
        log_points(log, range(100))
        end_run(log, "FINISHED")
    assert server.points == once(range(100))
    assert len([line for line in caplog.messages if "is damaged" in line]) == 1


def test_an_outbox_that_is_damaged_in_a_run_holds_no_task_up(
    recipe: Recipe, server: PoorServer
) -> None:
    log = start_run(recipe, "overwritten")
    server.trouble = lambda path, body: 503
    log_points(log, range(100))
    for path in log.outbox.folder.glob(f"{NAME}*"):
        if not path.name.endswith("-shm"):
            path.write_bytes(os.urandom(path.stat().st_size))
    log_points(log, range(100, 200))
    server.trouble = lambda path, body: None
    begin = time.monotonic()
    end_run(log, "FINISHED")
    assert time.monotonic() - begin < 2 * PATIENCE
    assert set(server.points.values()) <= {1}
