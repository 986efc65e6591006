"""What is logged, in a real MLflow server with a PostgreSQL store behind it."""

import os
import shutil
import socket
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from siqvl.recipe import Recipe
from siqvl.tracking.journal import journals
from siqvl.tracking.runs import client, end_run, stage_run, start_run
from siqvl.tracking.spool import spool_of
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
    tracking = {"experiment": "postgres", "uri": server.uri, "patience_seconds": 0.5}
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
    assert run.data.params["stages.dpo.beta"] == "0.1"
    assert [file.path for file in store.list_artifacts(log.run_id)] == ["note.txt"]
    assert not journals(spool_of(recipe).folder)
