"""Sampled pairs as a task: what it hands on, logs and shows."""

from pathlib import Path

import pytest
from flytekit import current_context
from flytekit.core.context_manager import FlyteContextManager

from siqvl.data.manifest import Manifest
from siqvl.evaluation.benchmarks.prepare_benchmarks import prepare_benchmarks
from siqvl.preferences.statistics import Sampling
from siqvl.recipe import Recipe, Stage
from siqvl.tracking.runs import client, tracking_uri
from tasks.contracts import Checkpoint, PreparedData
from tasks.preference_pairs import preference_pairs


@pytest.fixture
def inputs(trained, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict:
    monkeypatch.chdir(tmp_path)  # MLflow's artifacts go to ./mlruns
    prepare_benchmarks(trained.recipe, tmp_path / "benchmarks")
    return {
        "checkpoint": Checkpoint(str(trained.checkpoint(Stage.COT_SFT))),
        "data": PreparedData(str(trained.data(Stage.DPO))),
        "benchmarks": PreparedData(str(tmp_path / "benchmarks")),
    }


def sampling(recipe: Recipe, folder: Path) -> Recipe:
    content = recipe.model_dump(mode="json")
    content["output_dir"] = str(folder / "outputs")
    questions = {"kind": "shapes", "subsets": ["vqa"], "max_samples": 20}
    content["stages"]["dpo"]["sampled"] = {"source": questions, "max_new_tokens": 5}
    return Recipe.model_validate(content)


def test_nothing_sampled_is_handed_on(trained, inputs: dict) -> None:
    found = preference_pairs(**inputs, recipe=trained.recipe)
    assert Path(found.data.path) == trained.data(Stage.DPO)
    assert found.benchmarks.path == inputs["benchmarks"].path


def test_statistics_go_to_mlflow_and_pairs_to_a_deck(trained, inputs: dict, tmp_path: Path) -> None:
    recipe = sampling(trained.recipe, tmp_path)
    context = FlyteContextManager.current_context()
    with FlyteContextManager.with_context(context.new_builder()):
        before = len(current_context().decks)
        found = preference_pairs.task_function(**inputs, recipe=recipe)
        (deck,) = current_context().decks[before:]
    folder = Path(found.data.path)
    assert folder.is_relative_to(tmp_path / "outputs")
    assert found.benchmarks.path == inputs["benchmarks"].path
    counted = Sampling.read(folder)
    assert counted.pairs == Manifest.read(folder).rows_of_sources[1] > 0
    assert "Sampled pairs: dpo" in deck.html

    store = client(tracking_uri(recipe))
    experiment = store.get_experiment_by_name(recipe.tracking.experiment)
    (run,) = store.search_runs(
        [experiment.experiment_id], "attributes.run_name = 'preference pairs'"
    )
    assert run.info.status == "FINISHED"
    assert run.data.metrics["sampling/dpo/pairs"] == counted.pairs
    assert run.data.metrics["sampling/dpo/questions"] == 20
    kept = {Path(file.path).name for file in store.list_artifacts(run.info.run_id, "dpo")}
    assert {"manifest.json", "sampling.json", "sampling.html"} <= kept
