"""What is asked of a server without MLflow is what MLflow's own client finds there."""

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from mlflow import MlflowClient
from mlflow.exceptions import MlflowException
from mlflow.utils import mlflow_tags

from siqvl.tracking import runs
from siqvl.tracking.server.rest_request import RestError
from siqvl.tracking.server.rest_store import RestStore
from siqvl.tracking.store import Failure, failure, is_gone, run_store
from tests.loopback.tracking import mlflow_server

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with mlflow_server(tmp_path_factory.mktemp("server")) as uri:
        yield uri


def test_all_that_is_written_is_what_mlflow_reads(server: str, tmp_path: Path, capsys) -> None:
    store, mlflow = RestStore(server), MlflowClient(tracking_uri=server)
    assert store.get_experiment_by_name("all") is None
    number = store.create_experiment("all", tags={"mlflow.experimentKind": "genai"})
    assert mlflow.get_experiment(number).tags == {"mlflow.experimentKind": "genai"}
    assert store.get_experiment_by_name("all").experiment_id == number
    assert number in [one.experiment_id for one in store.search_experiments()]

    run = store.create_run(number, start_time=1234, tags={"mlflow.runName": "a name", "x": "1"})
    points = {
        "metrics": [{"key": "loss", "value": 0.5, "timestamp": 5, "step": 7}],
        "params": [{"key": "rate", "value": "0.1"}],
        "tags": [{"key": "y", "value": "2"}],
    }
    store.log_points(run.info.run_id, points)
    store.set_tag(run.info.run_id, "z", "3")
    store.delete_tag(run.info.run_id, "x")
    data = {"name": "rows", "digest": "d", "source_type": "local", "source": "{}"}
    store.log_datasets(run.info.run_id, [{**data, "tags": {"mlflow.data.context": "training"}}])
    store.log_text(run.info.run_id, "größer", "notes/a b.txt")
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "empty").touch()
    (tmp_path / "deep.bin").write_bytes(bytes(range(256)) * 9)
    store.log_artifacts(run.info.run_id, str(tmp_path), "kept")
    store.set_terminated(run.info.run_id, "FAILED", 99_999)

    found = mlflow.get_run(run.info.run_id)
    assert (found.info.run_name, found.info.status) == ("a name", "FAILED")
    assert (found.info.start_time, found.info.end_time) == (1234, 99_999)
    assert found.data.metrics == {"loss": 0.5}
    assert found.data.params == {"rate": "0.1"}
    assert {name: found.data.tags.get(name) for name in "xyz"} == {"x": None, "y": "2", "z": "3"}
    (used,) = found.inputs.dataset_inputs
    assert (used.dataset.name, used.tags[0].value) == ("rows", "training")
    place = Path(mlflow.download_artifacts(run.info.run_id, "", str(tmp_path)))
    assert (place / "notes" / "a b.txt").read_text(encoding="utf-8") == "größer"
    assert (place / "kept" / "deep.bin").read_bytes() == bytes(range(256)) * 9
    assert (place / "kept" / "in" / "empty").read_bytes() == b""
    page = f"{server}/#/experiments/{number}/runs/{run.info.run_id}"
    assert f"View run a name at: {page}" in capsys.readouterr().out


def test_runs_are_found_as_mlflow_finds_them(server: str) -> None:
    store, mlflow = RestStore(server), MlflowClient(tracking_uri=server)
    number = mlflow.create_experiment("found")
    made = [mlflow.create_run(number, tags={"of": name}) for name in ("a", "b", "a")]
    mlflow.log_param(made[0].info.run_id, "p", "1")
    mlflow.set_terminated(made[0].info.run_id, "KILLED", 7)
    asked = ([number], "tags.`of` = 'a'")
    ids = [run.info.run_id for run in mlflow.search_runs(*asked)]
    assert [run.info.run_id for run in store.search_runs(*asked)] == ids
    assert len(store.search_runs(*asked, max_results=1)) == 1
    run = store.get_run(made[0].info.run_id)
    known = mlflow.get_run(made[0].info.run_id)
    assert (run.data.tags, run.data.params) == (known.data.tags, known.data.params)
    assert (run.info.status, run.info.end_time) == ("KILLED", 7)
    store.update_run(made[0].info.run_id, "RUNNING")
    mlflow.update_run(made[1].info.run_id, "RUNNING")
    again = mlflow.get_run(made[0].info.run_id).info
    assert (again.status, again.end_time) == ("RUNNING", 7)  # as MLflow's client leaves it


def test_what_it_has_no_method_for_is_asked_of_mlflows_client(server: str) -> None:
    assert RestStore(server).create_registered_model("a model").name == "a model"


def test_errors_say_what_those_of_mlflow_say(server: str) -> None:
    store, mlflow = RestStore(server), MlflowClient(tracking_uri=server)
    for ask in (lambda one: one.get_run("0" * 32), lambda one: one.create_experiment("Default")):
        errors = []
        for one in (store, mlflow):
            with pytest.raises((RestError, MlflowException)) as caught:
                ask(one)
            errors.append(caught.value)
        own, theirs = errors
        assert isinstance(own, RestError)
        assert str(own)[:80] == str(theirs)[:80]  # times follow
        assert own.error_code == theirs.error_code
        assert failure(own) is failure(theirs) is Failure.REFUSED
        assert is_gone(own) == is_gone(theirs)


def test_a_server_that_is_away_is_away() -> None:
    with pytest.raises(RestError) as caught:
        RestStore("http://127.0.0.1:9").get_run("x")
    assert failure(caught.value) is Failure.AWAY


def test_tags_are_mlflows() -> None:
    assert runs.RUN_NAME == mlflow_tags.MLFLOW_RUN_NAME
    assert runs.PARENT == mlflow_tags.MLFLOW_PARENT_RUN_ID
    assert runs.GIT_COMMIT == mlflow_tags.MLFLOW_GIT_COMMIT


@pytest.mark.parametrize("name", ["MLFLOW_TRACKING_AUTH", "MLFLOW_TRACKING_AWS_SIGV4"])
def test_what_only_mlflow_can_do_is_left_to_it(name: str, monkeypatch) -> None:
    assert isinstance(run_store("http://127.0.0.1:9"), RestStore)
    monkeypatch.setenv(name, "true")
    assert isinstance(run_store("http://127.0.0.1:9"), MlflowClient)


#: Modules that take a tenth of a second of a core, or much more.
HEAVY = ("torch", "transformers", "mlflow", "pandas.core", "datasets", "sqlalchemy", "peft")
OPENED = f"""
import sys
from siqvl.recipe import Recipe
from tasks.pipeline_run import open_run
recipe = Recipe.load("recipes/tiny.yaml")
opened = open_run.task_function(recipe=recipe, fresh=False)
print("run", opened.run.run_id)
print("heavy", [name for name in {HEAVY} if name in sys.modules])
"""


def test_the_pod_that_opens_a_run_imports_no_heavy_library(server: str, tmp_path: Path) -> None:
    """A whole `open_run`, and delivery of what it logs, in a process as of a pod."""
    done = subprocess.run(
        [sys.executable, "-c", OPENED],
        cwd=ROOT,
        env=os.environ
        | {"MLFLOW_TRACKING_URI": server, "SIQVL_SPOOL": str(tmp_path / "spool")}
        | {f"FLYTE_INTERNAL_EXECUTION_{name}": "x" for name in ("ID", "PROJECT", "DOMAIN")},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    said = dict(line.split(" ", 1) for line in done.stdout.splitlines() if " " in line)
    assert said["heavy"] == "[]"
    run = MlflowClient(tracking_uri=server).get_run(said["run"])
    assert run.data.params["name"] == "tiny"
    assert run.info.status == "RUNNING"
