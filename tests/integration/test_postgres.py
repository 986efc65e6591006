"""A real MLflow server with a PostgreSQL store behind it: what is logged, registered, compared."""

import os
import shutil
import socket
import subprocess
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from multiprocessing import Pipe, get_context
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from siqvl.cli.main import main
from siqvl.recipe import PIPELINE, Recipe, Stage
from siqvl.tracking import heartbeat
from siqvl.tracking.background import background
from siqvl.tracking.heartbeat import end_lost
from siqvl.tracking.runs import client, end_run, stage_run, start_run
from tests.integration.outage_drill import Drill, logged, points, run
from tests.loopback.tracking import MlflowServer

pytestmark = pytest.mark.integration
STEPS = 500


def as_user(*command: str) -> None:
    """PostgreSQL does not run as root."""
    prefix = ["runuser", "-u", "postgres", "--"] if os.geteuid() == 0 else []
    subprocess.run([*prefix, *command], check=True, capture_output=True, cwd="/", timeout=120)


@pytest.fixture(scope="module")
def database() -> Iterator[str]:
    """A cluster of this test's own; its address."""
    found = [shutil.which(name) for name in ("initdb", "pg_ctl")]
    if not all(found):
        pytest.skip("PostgreSQL is not installed: initdb and pg_ctl are not on the PATH")
    initdb, pg_ctl = map(str, found)
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        Path(folder).chmod(0o777)
        data = f"{folder}/data"
        with socket.socket() as listener:
            listener.bind(("127.0.0.1", 0))
            port = listener.getsockname()[1]
        as_user(initdb, "-D", data, "-U", "siqvl", "-A", "trust", "--no-sync")
        options = f"-p {port} -c listen_addresses=127.0.0.1 -c unix_socket_directories={folder}"
        as_user(pg_ctl, "-D", data, "-o", options, "-l", f"{data}/log", "-w", "start")
        try:
            yield f"postgresql://siqvl@127.0.0.1:{port}/postgres"
        finally:
            as_user(pg_ctl, "-D", data, "-m", "immediate", "-w", "stop")


@pytest.fixture(scope="module")
def server(database: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[MlflowServer]:
    made = MlflowServer(tmp_path_factory.mktemp("server"), store=database)
    made.start()
    yield made
    made.kill()


def test_nothing_is_lost_and_nothing_twice(
    server: MlflowServer, small_recipe, tmp_path: Path
) -> None:
    tracking = {"experiment": "postgres", "uri": server.uri, "patience_seconds": 2.0}
    recipe: Recipe = small_recipe(tmp_path, tracking=tracking)
    parent = start_run(recipe, "parent")
    with stage_run(recipe, "vqa_sft", parent.run_id, {"siqvl.stage": "vqa_sft"}) as log:
        log.params(recipe.model_dump(mode="json"))
        for step in range(STEPS):
            if step == STEPS // 2:
                log.flush()
                server.kill()
            log.metrics({"loss": 1 / (step + 1), "nan": float("nan")}, step=step)
        log.text("a note", "note.txt")
    server.start()
    end_run(start_run(recipe, "later", parent=parent.run_id), "FINISHED")  # it is seen again
    assert log.flush()
    store = client(server.uri)
    run = store.get_run(log.run_id)
    for name in ("loss", "nan"):
        steps = [point.step for point in store.get_metric_history(log.run_id, name)]
        assert sorted(steps) == list(range(STEPS))
    assert run.info.status == "FINISHED"
    assert run.data.tags["mlflow.parentRunId"] == parent.run_id
    assert run.data.params["stages.dpo.beta"] == "1.0"
    assert [file.path for file in store.list_artifacts(log.run_id)] == ["note.txt"]
    assert background(log.outbox).outbox.streams() == []


def test_a_database_may_be_the_store_itself(database: str, small_recipe, tmp_path: Path) -> None:
    tracking = {"experiment": "direct", "uri": database, "patience_seconds": 30.0}
    log = start_run(small_recipe(tmp_path, tracking=tracking), "direct")
    log.metrics({"loss": 1.0})
    end_run(log, "FINISHED")
    run = client(database).get_run(log.run_id)
    assert (run.info.status, run.data.metrics) == ("FINISHED", {"loss": 1.0})


def begin_and_wait(recipe: Recipe, behind: float, begun: Any) -> None:
    """A process whose clock is wrong; it lives until it is killed."""
    now, now_ns = time.time, time.time_ns
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(time, "time", lambda: now() - behind)
        patch.setattr(time, "time_ns", lambda: now_ns() - int(behind * 1e9))
        log = start_run(recipe, "of another machine")
        begun.send((log.run_id, time.time()))
        time.sleep(300)


@pytest.mark.parametrize("hours", [5, -5])
@pytest.mark.parametrize("directly", [True, False])
def test_runs_are_judged_by_the_clock_of_their_store(
    server: MlflowServer,
    database: str,
    small_recipe,
    tmp_path: Path,
    directly: bool,
    hours: int,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # connections are those of an address, and a fork shares those that there are already
    uri = f"{database}?application_name={tmp_path.name}" if directly else server.uri
    tracking: dict = {"experiment": str(tmp_path), "uri": uri, "system_metrics_seconds": None}
    recipe: Recipe = small_recipe(tmp_path, tracking=tracking)
    here, there = Pipe()
    fork = get_context("fork")
    process = fork.Process(target=begin_and_wait, args=(recipe, 3600.0 * hours, there))
    process.start()
    try:
        run_id, clock = here.recv()
        assert abs(time.time() - clock - 3600 * hours) < 600
        store = client(uri)
        end_lost(uri, str(tmp_path))
        assert store.get_run(run_id).info.status == "RUNNING"
    finally:
        process.kill()
        process.join()
    monkeypatch.setattr(heartbeat, "LOST_AFTER", -60.0)  # as if it had been long
    end_lost(uri, str(tmp_path))
    info = store.get_run(run_id).info
    assert info.status == "KILLED"
    assert 0 <= info.end_time - info.start_time < 600_000  # both by the clock that was wrong


def test_two_pipelines_are_kept_registered_and_compared(
    server: MlflowServer, small_recipe, tmp_path: Path, forked: Path
) -> None:
    tracking = {"experiment": "two", "model_name": "two"}
    recipe: Recipe = small_recipe(tmp_path, tracking=tracking)
    found, wanted = Counter(), Counter()
    for number, rate in enumerate((1e-3, 1e-4)):
        content = recipe.model_dump(mode="json")
        content["stages"]["vqa_sft"]["learning_rate"] = rate
        changed = Recipe.model_validate(content)
        ran = run(changed, tmp_path / f"run-{number}", server, Drill(), forked)
        assert ran.code == 0, ran.printed[-3000:]
        wanted += logged(ran, Stage.VQA_SFT)
    found = points(server.uri, "two", Stage.VQA_SFT)
    assert found & wanted == wanted

    store = client(server.uri)
    experiment = store.get_experiment_by_name("two")
    assert experiment is not None
    parents = store.search_runs([experiment.experiment_id], "tags.`siqvl.kind` = 'pipeline'")
    assert {parent.info.status for parent in parents} == {"FINISHED"}
    newest, oldest = (parent.info.run_id for parent in parents)
    versions = store.search_model_versions("name = 'two'")
    assert sorted(version.tags["siqvl.stage"] for version in versions) == sorted([*PIPELINE] * 2)
    candidate = store.get_model_version_by_alias("two", "candidate")
    assert candidate.tags["siqvl.evaluation"] == f"runs:/{newest}/evaluation"

    options = ["--tracking-uri", server.uri, "--experiment", "two"]
    compared = CliRunner().invoke(main, ["runs", "compare", oldest, newest, *options])
    assert compared.exit_code == 0, compared.output
    assert "stages.vqa_sft.learning_rate 0.001 0.0001" in " ".join(compared.output.split())
