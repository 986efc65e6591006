"""A pipeline that fails: its MLflow run ends FAILED and says why."""

from pathlib import Path

import pytest
from flytekit import task, workflow
from flytekit.bin.entrypoint import get_traceback_str
from flytekit.exceptions.user import FlyteUserRuntimeException
from flytekit.types.directory import FlyteDirectory
from flytekit.types.error.error import FlyteError

from siqvl.errors import UserError
from siqvl.recipe import Recipe, Stage
from siqvl.recipe.grid import Grid
from siqvl.tracking.runs import REASON, RunLog, client, end_run, start_run
from tasks.flyte_tags import flyte_tags
from tasks.pipeline_failure import close_run
from tasks.pipeline_run import FOLDER, _parent_run
from tasks.sweep_point import close_sweep
from workflows.full_pipeline import full_pipeline

ROOT = Path(__file__).parents[2]
SENTENCE = "not promoted: 1 of 2 gates failed; the checkpoint and its report are kept: gate 'a'"


def pipeline_run(recipe: Recipe, **tags: str) -> RunLog:
    return start_run(recipe, "now", tags={"siqvl.kind": "pipeline", **flyte_tags(), **tags})


def ended(log: RunLog) -> tuple[str, str | None]:
    found = client(log.uri).get_run(log.run_id)
    return found.info.status, found.data.tags.get(REASON)


def in_pod(message: str) -> str:
    """flytekit's account of a UserError, as a pod writes it."""
    try:
        try:
            raise UserError(message)
        except UserError as error:
            raise FlyteUserRuntimeException(error) from error
    except FlyteUserRuntimeException as wrapped:
        return get_traceback_str(wrapped)


def test_the_run_of_this_execution_is_closed_with_its_open_children(recipe: Recipe) -> None:
    log, about = pipeline_run(recipe), flyte_tags()
    other = pipeline_run(recipe, **{"flyte.execution": "siqvl/development/other"})
    running, done = (
        start_run(recipe, name, parent=log.run_id, tags=about) for name in ("vqa_sft", "vqa data")
    )
    end_run(done, "FINISHED")
    error = FlyteError(failed_node_id="n3", message=in_pod(SENTENCE))
    assert close_run(recipe=recipe, err=error) is None
    assert ended(log) == ("FAILED", SENTENCE)
    assert [ended(one)[0] for one in (running, done, other)] == ["KILLED", "FINISHED", "RUNNING"]


def test_without_an_error_the_run_is_closed_all_the_same(recipe: Recipe) -> None:
    log = pipeline_run(recipe)
    close_run(recipe=recipe)
    assert ended(log) == ("FAILED", None)


def test_one_that_is_gone_on_with_has_failed_no_more(recipe: Recipe) -> None:
    log = pipeline_run(recipe, **{FOLDER: "20260101-000000-abcd"})
    close_run(recipe=recipe, err=FlyteError(failed_node_id="n3", message=SENTENCE))
    assert ended(log) == ("FAILED", SENTENCE)
    assert _parent_run(recipe, "20260101-000000-abcd") == log.run_id
    assert ended(log) == ("RUNNING", None)


def test_of_two_attempts_to_open_a_run_none_stays_open(recipe: Recipe) -> None:
    lost, second = pipeline_run(recipe), pipeline_run(recipe)
    close_run(recipe=recipe, err=FlyteError(failed_node_id="n0", message=SENTENCE))
    assert ended(second) == ("FAILED", SENTENCE)
    assert ended(lost) == ("KILLED", None)


def test_a_pod_without_a_server_has_opened_nothing(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    monkeypatch.setenv("FLYTE_INTERNAL_EXECUTION_ID", "abc")
    close_run(recipe=Recipe.load(ROOT / "recipes" / "tiny.yaml"))
    assert list(tmp_path.iterdir()) == []


def test_a_store_that_is_away_does_not_hide_why(recipe: Recipe, caplog) -> None:
    content = recipe.model_dump(mode="json")
    content["tracking"]["uri"] = "nonsense://mlflow"
    close_run(recipe=Recipe.model_validate(content))
    assert "the MLflow run could not be closed" in caplog.text


# A pod is lost


@pytest.fixture
def on_cluster(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    for part, value in {"PROJECT": "siqvl", "DOMAIN": "development", "ID": "abc"}.items():
        monkeypatch.setenv(f"FLYTE_INTERNAL_EXECUTION_{part}", value)
    return monkeypatch


def step(
    recipe: Recipe, monkeypatch: pytest.MonkeyPatch, name: str, pod: str, kind: str = "training"
) -> RunLog:
    """The run that a pod has opened, and could not close."""
    monkeypatch.setenv("HOSTNAME", pod)
    monkeypatch.setenv("SIQVL_KIND", kind)
    monkeypatch.setenv("FLYTE_ATTEMPT_NUMBER", pod.partition("-worker")[0].rpartition("-")[2])
    return start_run(recipe, name, tags=flyte_tags())


def lost(reason: str, pod: str, count: str = "[3/3]", kind: str = "USER") -> str:
    return (
        f"{count} currentAttempt done. Last Error: {kind}::Pod failed. No message received from "
        f"kubernetes.\r\n[{pod}] terminated with exit code (247). Reason [{reason}]. Message: \n"
        "ERROR: Unclosed client session\n."
    )


def test_the_step_whose_pod_was_lost_and_its_pipeline_say_why(recipe: Recipe, on_cluster) -> None:
    log = pipeline_run(recipe)
    beside = step(recipe, on_cluster, "dpo data", "abc-n0-0-dn7-0", "data")
    first = step(recipe, on_cluster, "vqa_sft", "abc-n0-0-dn6-0")
    last = step(recipe, on_cluster, "vqa_sft", "abc-n0-0-dn6-2")
    end_run(first, "KILLED")
    error = FlyteError(failed_node_id="fn0", message=lost("OOMKilled", "abc-n0-0-dn6-2"))
    close_run(recipe=recipe, err=error)
    memory = recipe.compute.training.memory
    why = (
        f"vqa_sft ran out of its {memory} of memory, in all 3 attempts: raise "
        "compute.training.memory or lower batch_size"
    )
    assert ended(log) == ("FAILED", why)
    assert ended(last) == ("FAILED", why)
    assert ended(first) == ("KILLED", None)
    assert ended(beside) == ("KILLED", None)


def test_a_pod_that_could_end_its_run_is_told_why_it_was_the_last(recipe, on_cluster) -> None:
    log = pipeline_run(recipe)
    drained = step(recipe, on_cluster, "vqa_sft", "abc-n0-0-dn6-3")
    end_run(drained, "KILLED")
    said = "object [siqvl-development/abc-n0-0-dn6-3] terminated in the background, manually"
    message = f"[3/3] currentAttempt done. Last Error: SYSTEM::{said}"
    close_run(recipe=recipe, err=FlyteError(failed_node_id="fn0", message=message))
    status, reason = ended(drained)
    assert status == "KILLED"
    assert reason == ended(log)[1]
    assert reason.startswith("vqa_sft had its pod deleted")


def test_the_run_of_a_job_is_found_by_its_node(recipe: Recipe, on_cluster) -> None:
    pipeline_run(recipe)
    worker = step(recipe, on_cluster, "vqa_sft", "abc-n0-0-dn6-0-worker-0")
    message = (
        "[1/1] currentAttempt done. Last Error: USER::Job failed:\n\tPyTorchJobFailed - PyTorchJob "
        "abc-n0-0-dn6-0 is failed because 1 Worker replica(s) failed."
    )
    close_run(recipe=recipe, err=FlyteError(failed_node_id="fn0", message=message))
    assert ended(worker)[0] == "FAILED"
    assert ended(worker)[1].startswith("vqa_sft lost a worker in its only attempt")


@pytest.mark.parametrize("pod", ["primary", ""])
def test_where_no_pod_is_named_it_is_what_is_open_and_was_tried_most(
    recipe: Recipe, on_cluster, pod: str
) -> None:
    log = pipeline_run(recipe)
    beside = step(recipe, on_cluster, "dpo data", "abc-n0-0-dn7-0", "data")
    last = step(recipe, on_cluster, "vqa_sft", "abc-n0-0-dn6-2")
    message = "[1/1] currentAttempt done. Last Error: UNKNOWN::Dynamic workflow failed"
    message = lost("OOMKilled", pod) if pod else message
    close_run(recipe=recipe, err=FlyteError(failed_node_id="fn0", message=message))
    assert ended(last)[0] == "FAILED"
    assert ended(last)[1] == ended(log)[1]
    assert ended(last)[1].startswith("vqa_sft ")
    assert ended(beside) == ("KILLED", None)


def test_the_container_of_a_pod_template_says_the_kind_of_task(recipe, on_cluster) -> None:
    log = pipeline_run(recipe)
    beside = step(recipe, on_cluster, "dpo data", "abc-n0-0-dn7-0", "data")
    last = step(recipe, on_cluster, "vqa_sft", "abc-n0-0-dn6-0")
    message = lost("OOMKilled", "training", "[1/1]")
    close_run(recipe=recipe, err=FlyteError(failed_node_id="fn0", message=message))
    assert ended(last) == ended(log)
    assert ended(last)[1].startswith("vqa_sft ran out of its ")
    assert ended(beside) == ("KILLED", None)


def test_a_kind_of_task_of_which_nothing_runs_still_names_its_requests(recipe, on_cluster) -> None:
    log = pipeline_run(recipe)
    message = lost("OOMKilled", "data", "[1/1]")
    close_run(recipe=recipe, err=FlyteError(failed_node_id="fn0", message=message))
    memory = recipe.compute.data.memory
    assert ended(log)[1] == (
        f"a task ran out of its {memory} of memory in its only attempt: raise compute.data.memory"
    )


def test_two_steps_that_may_be_the_one_are_both_named(recipe: Recipe, on_cluster) -> None:
    log = pipeline_run(recipe)
    for number, name in enumerate(("vqa_sft", "dpo data")):
        step(recipe, on_cluster, name, f"abc-n0-0-dn{number}-0")
    close_run(recipe=recipe, err=FlyteError(failed_node_id="fn0", message="Timeout in node"))
    assert ended(log)[1].startswith("dpo data or vqa_sft was ended by a time-out")


def test_a_task_without_a_run_is_told_by_its_pod(recipe: Recipe, on_cluster) -> None:
    log = pipeline_run(recipe)
    message = lost("OOMKilled", "abc-n0-0-dn0-0", "[1/1]")
    close_run(recipe=recipe, err=FlyteError(failed_node_id="fn0", message=message))
    assert ended(log)[1].startswith("the task of pod abc-n0-0-dn0-0 ran out of its memory in its")


def test_the_points_of_a_sweep_say_each_their_own(
    recipe: Recipe, on_cluster, tmp_path: Path
) -> None:
    log = start_run(recipe, "sweep", tags={"siqvl.kind": "sweep", **flyte_tags()})
    names = ["learning_rate=0.1", "learning_rate=0.2"]
    one, other = (
        step(recipe, on_cluster, name, f"abc-n0-0-dn1-0-n{number}-2")
        for number, name in enumerate(names)
    )
    message = "".join(
        f"[{number}]: {lost('OOMKilled', f'abc-n0-0-dn1-0-n{number}-2')}\n" for number in (0, 1)
    )
    data = FlyteDirectory(str(tmp_path))
    close_sweep(
        stage=Stage.VQA_SFT,
        data=data,
        benchmarks=data,
        grid=Grid(values={"learning_rate": [0.1, 0.2]}),
        recipe=recipe,
        err=FlyteError(failed_node_id="fn0", message=message),
    )
    for run, name in zip((one, other), names, strict=True):
        assert ended(run)[0] == "FAILED"
        assert ended(run)[1].startswith(f"{name} ran out of its ")
    assert ended(log) == ("FAILED", f"{ended(one)[1]}; {ended(other)[1]}")


# As flytekit calls it


@task
def opens_and_fails(recipe: Recipe) -> None:
    pipeline_run(recipe)
    raise UserError(SENTENCE)


@workflow(on_failure=close_run)
def failing(recipe: Recipe, fresh: bool = False) -> None:
    opens_and_fails(recipe=recipe)


def test_a_workflow_that_fails_here_ends_its_run(recipe: Recipe) -> None:
    with pytest.raises(UserError) as caught:
        failing(recipe=recipe)
    assert SENTENCE in str(caught.value)
    store = client(recipe.tracking.uri or "")
    experiment = store.get_experiment_by_name(recipe.tracking.experiment)
    (run,) = store.search_runs([experiment.experiment_id])
    assert run.info.status == "FAILED"
    assert run.data.tags[REASON] == SENTENCE


def test_a_recipe_that_is_refused_leaves_nothing_behind(recipe: Recipe, tmp_path: Path) -> None:
    content = recipe.model_dump(mode="json")
    content["stages"]["dpo"]["sources"] = [{"kind": "easy_vqa", "path": "no/such/folder"}]
    content["tracking"]["uri"] = f"sqlite:///{tmp_path}/mlflow.db"
    with pytest.raises(UserError, match="no/such/folder") as caught:
        full_pipeline(recipe=Recipe.model_validate(content))
    assert "MLflow" not in str(caught.value)
    assert list(tmp_path.iterdir()) == []


def test_an_unusable_store_is_the_reason_given(recipe: Recipe) -> None:
    content = recipe.model_dump(mode="json")
    content["tracking"]["uri"] = "sqlite:////dev/null/mlflow.db"
    with pytest.raises(UserError, match=r"MLflow store sqlite:////dev/null/mlflow\.db cannot be"):
        full_pipeline(recipe=Recipe.model_validate(content))
