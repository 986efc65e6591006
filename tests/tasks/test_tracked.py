"""Which execution a task's run is of, and what becomes of runs that an attempt left behind."""

import subprocess
import sys
from pathlib import Path

import pytest

from siqvl.errors import UserError
from siqvl.recipe import Recipe
from siqvl.tracking import heartbeat
from siqvl.tracking.heartbeat import Open
from siqvl.tracking.runs import RunLog, client, end_run, start_run
from tasks.contracts import ALONE, PipelineRun
from tasks.flyte_tags import EXECUTION, LOCAL, execution, flyte_tags
from tasks.tracked import check_pod, tracked

ROOT = Path(__file__).parents[2]


def in_pod(monkeypatch: pytest.MonkeyPatch, name: str = "abc", attempt: int = 0) -> None:
    parts = {"PROJECT": "siqvl", "DOMAIN": "development", "ID": name}
    for part, value in parts.items():
        monkeypatch.setenv(f"FLYTE_INTERNAL_EXECUTION_{part}", value)
    monkeypatch.setenv("FLYTE_ATTEMPT_NUMBER", str(attempt))


def status(log: RunLog) -> str:
    return client(log.uri).get_run(log.run_id).info.status


def tags(log: RunLog) -> dict[str, str]:
    return client(log.uri).get_run(log.run_id).data.tags


def test_on_a_cluster_an_execution_has_its_name_there(monkeypatch: pytest.MonkeyPatch) -> None:
    in_pod(monkeypatch, attempt=2)
    monkeypatch.setenv("FLYTE_INTERNAL_TASK_NAME", "tasks.dpo.dpo")
    monkeypatch.setenv("FLYTE_INTERNAL_IMAGE", "registry/siqvl:1")
    monkeypatch.setenv("HOSTNAME", "abc-n0-0-dn3-2")
    assert execution() == "siqvl/development/abc"
    assert flyte_tags() == {
        "flyte.execution": "siqvl/development/abc",
        "flyte.attempt": "2",
        "flyte.project": "siqvl",
        "flyte.domain": "development",
        "flyte.task": "tasks.dpo.dpo",
        "flyte.image": "registry/siqvl:1",
        "flyte.node": "n0-0-dn3",
    }
    monkeypatch.setenv("SIQVL_FLYTE_CONSOLE", "https://flyte.example.org/")
    assert flyte_tags()["flyte.url"] == (
        "https://flyte.example.org/console/projects/siqvl/domains/development/executions/abc"
    )


def test_elsewhere_it_has_one_of_this_process(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("FLYTE_INTERNAL_EXECUTION_ID", raising=False)
    code = "from tasks.flyte_tags import execution; print(execution())"
    other = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True
    ).stdout.strip()
    assert execution() == execution() == LOCAL
    assert other.startswith("local-")
    assert other != LOCAL


def test_a_run_knows_its_pipeline_and_its_execution(recipe: Recipe, monkeypatch) -> None:
    in_pod(monkeypatch, attempt=1)
    parent = start_run(recipe, "parent")
    run = PipelineRun(name="now", run_id=parent.run_id)
    with tracked(recipe, "vqa_sft", run, {"siqvl.stage": "vqa_sft"}) as log:
        found = tags(log)
    assert found["mlflow.parentRunId"] == parent.run_id
    assert found["mlflow.runName"] == "vqa_sft"
    assert found[EXECUTION] == "siqvl/development/abc"
    assert found["flyte.attempt"] == "1"
    assert found["siqvl.stage"] == "vqa_sft"
    assert (status(log), status(parent)) == ("FINISHED", "RUNNING")


def test_the_run_of_a_lost_attempt_is_killed_by_the_next(recipe: Recipe, monkeypatch) -> None:
    in_pod(monkeypatch)
    parent = start_run(recipe, "parent", tags=flyte_tags())
    run = PipelineRun(name="now", run_id=parent.run_id)
    about = flyte_tags()
    lost = [start_run(recipe, "vqa_sft", parent=parent.run_id, tags=about) for _ in range(2)]
    beside = start_run(recipe, "cot_sft", parent=parent.run_id, tags=about)
    in_pod(monkeypatch, attempt=1)
    with tracked(recipe, "vqa_sft", run) as log:
        assert [status(one) for one in (*lost, beside, log)] == [
            "KILLED",
            "KILLED",
            "RUNNING",
            "RUNNING",
        ]
    assert (status(log), status(parent)) == ("FINISHED", "RUNNING")


def test_an_attempt_that_still_lives_does_not_end_as_if_it_were_the_last(
    recipe: Recipe, monkeypatch
) -> None:
    """Its run ends when the next attempt begins; its heart goes on, and it comes to an end."""
    in_pod(monkeypatch)
    with tracked(recipe, "vqa_sft", ALONE) as older:
        in_pod(monkeypatch, attempt=1)
        with tracked(recipe, "vqa_sft", ALONE) as newer:
            assert (status(older), status(newer)) == ("KILLED", "RUNNING")
            experiment = recipe.tracking.experiment
            heartbeat._beat(Open(older.uri, older.run_id, older.outbox, experiment, own=True))
            older.metrics({"loss": 1.0})
            older.flush()
            assert status(older) == "KILLED"
        end_run(older, "FINISHED")
        assert (status(older), status(newer)) == ("KILLED", "FINISHED")
    assert tags(older)["siqvl.replaced_by_attempt"] == "1"
    assert status(older) == "KILLED"


def test_an_older_attempt_leaves_the_run_of_a_newer_one_alone(recipe: Recipe, monkeypatch) -> None:
    """It was slow to begin; or it begins anew, by torch elastic, in its own pod."""
    in_pod(monkeypatch, attempt=1)
    with tracked(recipe, "vqa_sft", ALONE) as newer:
        in_pod(monkeypatch, attempt=0)
        with tracked(recipe, "vqa_sft", ALONE):
            assert status(newer) == "RUNNING"
    assert status(newer) == "FINISHED"


def test_other_executions_are_left_alone(recipe: Recipe, monkeypatch) -> None:
    in_pod(monkeypatch, "one")
    with tracked(recipe, "vqa_sft", ALONE) as one:
        in_pod(monkeypatch, "another")
        with tracked(recipe, "vqa_sft", ALONE) as another:
            assert (status(one), status(another)) == ("RUNNING", "RUNNING")


def test_a_task_that_runs_alone_has_no_parent(recipe: Recipe) -> None:
    with tracked(recipe, "vqa_sft", ALONE) as log:
        assert "mlflow.parentRunId" not in tags(log)
    assert status(log) == "FINISHED"


@pytest.mark.parametrize("name", ["loss={'sigmoid': 1.0}", "trainable=['projector'], seed=1"])
def test_a_point_of_a_sweep_may_have_quotes_in_its_name(recipe: Recipe, name: str) -> None:
    lost = start_run(recipe, name, tags=flyte_tags())
    with tracked(recipe, name, ALONE) as log:
        assert tags(log)["mlflow.runName"] == name
    assert (status(lost), status(log)) == ("KILLED", "FINISHED")


def test_a_pod_needs_a_server(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    tiny = Recipe.load(ROOT / "recipes" / "tiny.yaml")
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    check_pod(tiny)  # here a file will do
    in_pod(monkeypatch)
    with pytest.raises(UserError, match=r"no MLflow server is configured") as caught:
        check_pod(tiny)
    assert "\n" not in caught.value.message
    with pytest.raises(UserError), tracked(tiny, "vqa_sft", ALONE):
        raise AssertionError("it began")
    assert list(tmp_path.iterdir()) == []
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://mlflow:5000")
    check_pod(tiny)
