"""MLflow runs on a sqlite store of the test's own."""

from pathlib import Path

import pytest

from siqvl.errors import UserError
from siqvl.recipe import Recipe
from siqvl.tracking.runs import (
    DEFAULT_STORE,
    RunLog,
    client,
    end_open,
    end_run,
    find_runs,
    flatten,
    stage_run,
    start_run,
    tracking_uri,
)
from siqvl.tracking.store import without_password

RECIPES = Path(__file__).parents[2] / "recipes"


@pytest.fixture(autouse=True)
def _away_from_the_checkout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)  # a sqlite store keeps its artifacts in ./mlruns


@pytest.fixture(scope="module")
def recipe(tmp_path_factory: pytest.TempPathFactory) -> Recipe:
    store = tmp_path_factory.mktemp("mlflow")
    content = Recipe.load(RECIPES / "tiny.yaml").model_dump()
    content["tracking"] = {"experiment": "test", "uri": f"sqlite:///{store}/mlflow.db"}
    return Recipe.model_validate(content)


def test_children_end_in_the_true_state_and_know_their_parent(recipe: Recipe) -> None:
    parent = start_run(recipe, "parent")
    parent.params(recipe.model_dump(mode="json"))
    with stage_run(recipe, "good", parent.run_id, {"siqvl.stage": "vqa_sft"}) as good:
        good.metrics({"train/loss": 2.0}, step=1)
        good.metrics({"train/loss": 1.0}, step=2)
        good.text("hello", "note.txt")
    with pytest.raises(RuntimeError), stage_run(recipe, "bad", parent.run_id, {}) as bad:
        raise RuntimeError("broken")

    store = client(parent.uri)
    assert store.get_run(parent.run_id).info.status == "FAILED"
    end_run(parent, "FINISHED")  # what the pipeline's last task does after a retry
    assert store.get_run(parent.run_id).info.status == "FINISHED"

    child = store.get_run(good.run_id)
    assert child.info.status == "FINISHED"
    assert child.data.tags["mlflow.parentRunId"] == parent.run_id
    assert child.data.tags["siqvl.recipe_hash"] == recipe.hash()
    history = store.get_metric_history(good.run_id, "train/loss")
    assert [(point.step, point.value) for point in history] == [(1, 2.0), (2, 1.0)]
    assert [file.path for file in store.list_artifacts(good.run_id)] == ["note.txt"]
    assert store.get_run(bad.run_id).info.status == "FAILED"
    params = store.get_run(parent.run_id).data.params
    assert params["stages.dpo.beta"] == "1.0"
    assert params["stages.vqa_sft.sources.0.kind"] == "shapes"


def test_an_interrupted_stage_is_killed(recipe: Recipe) -> None:
    with pytest.raises(KeyboardInterrupt), stage_run(recipe, "stopped", None, {}) as log:
        raise KeyboardInterrupt
    assert client(log.uri).get_run(log.run_id).info.status == "KILLED"


def status(log: RunLog) -> str:
    return client(log.uri).get_run(log.run_id).info.status


#: Names that a filter of MLflow's could be mistaken about.
NAMES = ["vqa_sft", "it's", 'a "name"', "loss={'sigmoid': 1.0, 'a': \"b'c\"}", "a `b` = c and d"]


@pytest.mark.parametrize("name", NAMES)
def test_runs_are_found_by_all_of_their_tags_the_newest_first(recipe: Recipe, name: str) -> None:
    about = {"flyte.execution": f"siqvl/development/{name}", "siqvl.kind": "pipeline"}
    start_run(recipe, "other execution", tags=about | {"flyte.execution": "siqvl/production/a"})
    start_run(recipe, "other kind", tags=about | {"siqvl.kind": "sweep"})
    assert find_runs(recipe, about) == []
    first = start_run(recipe, "first", tags=about)
    second = start_run(recipe, "second", tags=about)
    assert find_runs(recipe, about) == [second, first]
    end_run(second, "FINISHED")
    assert find_runs(recipe, about, status="RUNNING") == [first]
    content = recipe.model_dump()
    content["tracking"]["experiment"] = "another"
    assert find_runs(Recipe.model_validate(content), about) == []


def test_looking_for_runs_makes_no_store(recipe: Recipe, tmp_path: Path) -> None:
    content = recipe.model_dump()
    content["tracking"]["uri"] = f"sqlite:///{tmp_path}/none.db"
    assert find_runs(Recipe.model_validate(content), {"siqvl.kind": "pipeline"}) == []
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", NAMES)
def test_runs_that_are_open_are_closed_and_those_that_ended_left(recipe: Recipe, name: str) -> None:
    tags = {"flyte.execution": f"one/{name}"}
    logs = {end: start_run(recipe, name, tags=tags) for end in ("FINISHED", "KILLED", "RUNNING")}
    for end, log in logs.items():
        if end != "RUNNING":
            end_run(log, end)
    other_name = start_run(recipe, f"{name} data", tags=tags)
    elsewhere = start_run(recipe, name, tags={"flyte.execution": "another"})
    end_open(recipe, tags | {"mlflow.runName": name}, "FAILED")
    assert [status(log) for log in logs.values()] == ["FINISHED", "KILLED", "FAILED"]
    assert [status(log) for log in (other_name, elsewhere)] == ["RUNNING", "RUNNING"]
    end_open(recipe, tags, "FAILED")
    assert [status(log) for log in (other_name, elsewhere)] == ["FAILED", "RUNNING"]


def test_the_store_is_the_recipes_then_the_environments_then_a_file(
    recipe: Recipe, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain = Recipe.load(RECIPES / "tiny.yaml")
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    assert tracking_uri(plain) == DEFAULT_STORE
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://mlflow:5000")
    assert tracking_uri(plain) == "http://mlflow:5000"
    assert tracking_uri(recipe) == recipe.tracking.uri


def test_an_unusable_store_is_one_line(recipe: Recipe) -> None:
    content = recipe.model_dump()
    content["tracking"]["uri"] = "sqlite:////dev/null/mlflow.db"
    with pytest.raises(UserError, match=r"MLflow store sqlite:////dev/null/mlflow\.db cannot be"):
        start_run(Recipe.model_validate(content), "never")


def test_names_that_differ_only_in_punctuation_stay_two(recipe: Recipe) -> None:
    names = ["acc@5", "acc#5", "acc_5", "acc 5", "acc/5", "acc(5)", "\u00e9/a", "a=b", "a+b"]
    log = start_run(recipe, "names")
    log.metrics({name: float(number) for number, name in enumerate(names)})
    log.params({name: number for number, name in enumerate(names)})
    end_run(log, "FINISHED")
    data = client(log.uri).get_run(log.run_id).data
    assert sorted(data.metrics.values()) == [float(number) for number in range(len(names))]
    assert sorted(map(int, data.params.values())) == list(range(len(names)))
    assert {"acc_5", "acc 5", "acc/5", "\u00e9/a"} <= data.metrics.keys()  # these are allowed


def test_flatten_and_passwords() -> None:
    assert flatten({"a": {"b": 1}, "c": [2, {"d": 3}], "e": []}) == {
        "a.b": 1,
        "c.0": 2,
        "c.1.d": 3,
        "e": {},
    }
    assert without_password("postgresql://me:secret@db/x") == "postgresql://me:***@db/x"
    assert without_password("https://me:secret@db/x") == "https://me:***@db/x"
    assert without_password("https://token@db:1/x") == "https://***@db:1/x"
    assert without_password("https://db:1/x@y") == "https://db:1/x@y"
