"""Runs whose process is gone end as KILLED by whoever comes next; those of the living go on."""

import multiprocessing
import os
import signal
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from siqvl.recipe import Recipe
from siqvl.tracking import background as background_module
from siqvl.tracking import heartbeat
from siqvl.tracking.background import background
from siqvl.tracking.runs import RunLog, client, end_run, run_log, stage_run, start_run
from siqvl.tracking.store import HEARTBEAT, REASON, store_time
from tests.loopback.poor_server import poor_server


@pytest.fixture
def recipe(tmp_path: Path, small_recipe: Callable[..., Recipe], monkeypatch) -> Recipe:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(heartbeat, "EVERY", 0.2)
    monkeypatch.setattr(heartbeat, "_thread", None)  # that of tests before waits for a minute
    tracking: dict = {"experiment": "test", "uri": f"sqlite:///{tmp_path}/mlflow.db"}
    return small_recipe(tmp_path, tracking=tracking | {"system_metrics_seconds": None})


def status(log: RunLog) -> str:
    return client(log.uri).get_run(log.run_id).info.status


def wait_for(log: RunLog, wanted: str) -> None:
    end = time.monotonic() + 60
    while status(log) != wanted:
        assert time.monotonic() < end
        time.sleep(0.02)


def begin_and_die(recipe: Recipe, folder: Path) -> None:
    log = start_run(recipe, "lost")
    log.metrics({"loss": 1.0})
    log.flush()
    (folder / "run").write_text(log.run_id)
    os.kill(os.getpid(), signal.SIGKILL)


def lost_run(recipe: Recipe, folder: Path) -> RunLog:
    child = multiprocessing.get_context("fork").Process(target=begin_and_die, args=(recipe, folder))
    child.start()
    child.join(60)
    assert child.exitcode == -signal.SIGKILL
    return run_log(recipe, (folder / "run").read_text())


def test_who_comes_next_ends_what_a_killed_process_left(
    recipe: Recipe, tmp_path: Path, monkeypatch, caplog
) -> None:
    lost = lost_run(recipe, tmp_path)
    store = client(lost.uri)
    (experiment,) = {store.get_run(lost.run_id).info.experiment_id}
    of_others = store.create_run(experiment).info.run_id  # such as those of another program
    with stage_run(recipe, "soon after", None, {}):
        time.sleep(0.5)
        assert status(lost) == "RUNNING"
    later = store_time(lost.uri) + heartbeat.LOST_AFTER
    monkeypatch.setattr(heartbeat, "store_time", lambda uri: later + 5)
    with stage_run(recipe, "long after", None, {}) as log:
        wait_for(lost, "KILLED")
        assert status(log) == "RUNNING"
    info = store.get_run(lost.run_id).info
    assert info.end_time == int(store.get_run(lost.run_id).data.tags[HEARTBEAT].split()[1])
    assert info.start_time <= info.end_time
    assert store.get_run(of_others).info.status == "RUNNING"
    assert store.get_run(lost.run_id).data.tags[REASON] == (
        "its process was killed, or its machine was lost: no heartbeat for 10 minutes"
    )
    assert "run `lost` has had no heartbeat for 10 minutes: it ends KILLED" in caplog.text


def test_a_run_that_was_ended_by_mistake_goes_on(recipe: Recipe) -> None:
    parent = start_run(recipe, "parent")
    with stage_run(recipe, "stage", parent.run_id, {}) as log:
        for one in (log, parent):
            client(log.uri).set_terminated(one.run_id, "KILLED")
        for one in (log, parent):
            wait_for(one, "RUNNING")
    assert status(log) == "FINISHED"
    end_run(parent, "FAILED")
    time.sleep(0.3)
    assert status(parent) == "FAILED"


def test_a_run_that_goes_on_or_has_finished_has_no_error(recipe: Recipe) -> None:
    parent = start_run(recipe, "parent")
    with stage_run(recipe, "stage", parent.run_id, {}) as log:
        for one in (log, parent):
            client(log.uri).set_tag(one.run_id, REASON, "no heartbeat")
        client(log.uri).set_terminated(parent.run_id, "KILLED")
        wait_for(parent, "RUNNING")
        end = time.monotonic() + 60
        while REASON in client(log.uri).get_run(parent.run_id).data.tags:
            assert time.monotonic() < end
            time.sleep(0.02)
    assert status(log) == "FINISHED"
    assert REASON not in client(log.uri).get_run(log.run_id).data.tags


def test_a_stage_keeps_the_run_of_its_pipeline_alive(recipe: Recipe) -> None:
    parent = start_run(recipe, "parent")
    heartbeat._open.clear()  # as when the pod that has opened it is gone
    client(parent.uri).set_tag(parent.run_id, HEARTBEAT, "1 1")
    with stage_run(recipe, "stage", parent.run_id, {}):
        end = time.monotonic() + 60
        while client(parent.uri).get_run(parent.run_id).data.tags[HEARTBEAT] == "1 1":
            assert time.monotonic() < end
            time.sleep(0.02)
    assert status(parent) == "RUNNING"
    client(parent.uri).set_terminated(parent.run_id, "KILLED")
    time.sleep(0.3)
    assert status(parent) == "KILLED"  # nobody works on it any more


def test_no_end_is_undone_by_a_beat_that_was_under_way(recipe: Recipe, monkeypatch) -> None:
    monkeypatch.setattr(heartbeat, "EVERY", 1000.0)
    log = start_run(recipe, "ended meanwhile")
    (run,) = (one for one in heartbeat.own_runs() if one.run_id == log.run_id)
    store = client(log.uri)
    store.set_terminated(log.run_id, "KILLED")

    class Ends:
        """A store in which the run is looked up, and ends before the answer is there."""

        set_tag = store.set_tag

        def get_run(self, run_id: str):
            found = store.get_run(run_id)
            end_run(log, "FINISHED")
            return found

    monkeypatch.setattr(heartbeat, "run_store", lambda uri: Ends())
    heartbeat._beat(run)
    assert log.flush()
    assert status(log) == "FINISHED"


def test_an_end_that_waits_for_its_store_is_the_true_one(recipe: Recipe, monkeypatch) -> None:
    monkeypatch.setattr(heartbeat, "LOST_AFTER", -1.0)
    monkeypatch.setattr(heartbeat, "EVERY", 1000.0)
    log = start_run(recipe, "finished")
    (run,) = (one for one in heartbeat.own_runs() if one.run_id == log.run_id)
    with monkeypatch.context() as patch:
        patch.setattr(background_module.Sender, "_deliver", lambda *_: None)
        with heartbeat.ending(log.run_id):
            log._log("end", [{"status": "FINISHED", "time": 2_000_000_000_000}])
        heartbeat._look(run)
        assert status(log) == "RUNNING"
    background(log.outbox).sender(log.uri).notify(now=True)
    wait_for(log, "FINISHED")


@pytest.mark.parametrize("ahead", [0.0, 5 * 3600.0, -5 * 3600.0])
def test_a_server_is_asked_for_its_time(ahead: float) -> None:
    with poor_server() as server:
        server.ahead = ahead
        assert abs(store_time(server.uri) - time.time() - ahead) < 60
