"""Processes that begin at once where there is no store: one of them makes it."""

from pathlib import Path

import pytest

from siqvl.recipe import Recipe
from siqvl.tracking.runs import client, end_run, start_run
from tests.quick import children

PROCESSES = 4


def begin(recipe: Recipe, barrier, results) -> None:
    barrier.wait()
    try:
        log = start_run(recipe, "at once")
        log.metrics({"loss": 1.0})
        end_run(log, "FINISHED")
        results.put("")
    except BaseException as error:
        results.put(repr(error))


@pytest.mark.integration
@pytest.mark.parametrize("number", [0, pytest.param(1, marks=pytest.mark.drill)])
def test_pipelines_that_start_at_once_make_one_store(
    recipe: Recipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    monkeypatch.chdir(tmp_path)
    content = recipe.model_dump(mode="json")
    content |= {"output_dir": str(tmp_path / "outputs")}
    content["tracking"] |= {"uri": f"sqlite:///{tmp_path}/below/mlflow.db"}
    recipe = Recipe.model_validate(content)
    barrier, results = children.Barrier(PROCESSES), children.SimpleQueue()
    arguments = (recipe, barrier, results)
    started = [children.Process(target=begin, args=arguments) for _ in range(PROCESSES)]
    for process in started:
        process.start()
    assert [results.get() for _ in started] == [""] * PROCESSES
    for process in started:
        process.join()
    store = client(recipe.tracking.uri or "")
    experiment = store.get_experiment_by_name(recipe.tracking.experiment)
    assert experiment is not None
    runs = store.search_runs([experiment.experiment_id])
    assert [run.info.status for run in runs] == ["FINISHED"] * PROCESSES
    assert [run.data.metrics for run in runs] == [{"loss": 1.0}] * PROCESSES
    assert [path.name for path in (tmp_path / "below").iterdir()] == ["mlflow.db"]
