"""A pipeline that fails: its MLflow run ends FAILED and says why."""

from pathlib import Path

import pytest
from flytekit import task, workflow
from flytekit.bin.entrypoint import get_traceback_str
from flytekit.exceptions.user import FlyteUserRuntimeException
from flytekit.types.error.error import FlyteError

from siqvl.errors import UserError
from siqvl.recipe import Recipe
from siqvl.tracking.runs import REASON, RunLog, client, end_run, start_run
from tasks.flyte_tags import flyte_tags
from tasks.pipeline_failure import close_run, reason
from tasks.pipeline_run import FOLDER, _parent_run
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


def test_the_reason_is_the_last_line_of_what_flytekit_says() -> None:
    said = in_pod(SENTENCE)
    assert said.count("\n") > 5
    assert reason(said) == f"UserError: {SENTENCE}"
    assert reason(f"Error encountered while executing 'promotion':\n  {SENTENCE}\n\n") == SENTENCE
    assert reason(SENTENCE) == SENTENCE
    assert reason("") == reason(" \n\n ") == "unknown"


def test_the_run_of_this_execution_is_closed_with_its_open_children(recipe: Recipe) -> None:
    log, about = pipeline_run(recipe), flyte_tags()
    other = pipeline_run(recipe, **{"flyte.execution": "siqvl/development/other"})
    running, done = (
        start_run(recipe, name, parent=log.run_id, tags=about) for name in ("vqa_sft", "vqa data")
    )
    end_run(done, "FINISHED")
    error = FlyteError(failed_node_id="n3", message=in_pod(SENTENCE))
    assert close_run(recipe=recipe, err=error) is None
    assert ended(log) == ("FAILED", f"UserError: {SENTENCE}")
    assert [ended(one)[0] for one in (running, done, other)] == ["FAILED", "FINISHED", "RUNNING"]


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
    assert ended(lost)[0] == "FAILED"


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
