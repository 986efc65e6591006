"""Evaluation as tasks: in one piece or side by side, with the page as a deck."""

import html
from pathlib import Path

import pytest
from flytekit import current_context
from flytekit.core.context_manager import FlyteContextManager

from siqvl.evaluation.benchmarks.prepare_benchmarks import prepare_benchmarks
from siqvl.recipe import Recipe, Stage
from siqvl.tracking.runs import client
from tasks.contracts import Checkpoint, PipelineRun, PreparedData
from tasks.evaluation import evaluation
from workflows.evaluated import evaluated


@pytest.fixture
def build(trained, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """The inputs of an evaluation, with some keys of the recipe changed."""
    monkeypatch.chdir(tmp_path)  # MLflow's artifacts go to ./mlruns

    def build(**changes) -> dict:
        content = trained.recipe.model_dump(mode="json")
        content["output_dir"] = str(tmp_path / "outputs")
        content["tracking"]["uri"] = f"sqlite:///{tmp_path}/mlflow.db"
        benchmark = content["evaluation"]["benchmarks"][0]
        content["evaluation"] = {"benchmarks": [benchmark], "batch_size": 5, **changes}
        recipe = Recipe.model_validate(content)
        if not (tmp_path / "rows").exists():
            prepare_benchmarks(recipe, tmp_path / "rows")
        return {
            "checkpoint": Checkpoint(str(trained.checkpoint(Stage.VQA_SFT))),
            "data": PreparedData(str(tmp_path / "rows")),
            "recipe": recipe,
        }

    return build


def test_shards_side_by_side_give_the_report_of_one_task(build) -> None:
    whole = evaluated(**build(), run=PipelineRun(name="one"))
    split = evaluated(**build(shards=3), run=PipelineRun(name="three"))
    files = {path.name: path.read_bytes() for path in Path(whole.path).iterdir()}
    assert files.keys() == {"scores.json", "predictions.parquet", "report.html"}
    assert {path.name: path.read_bytes() for path in Path(split.path).iterdir()} == files


def test_scores_are_logged_and_the_page_is_the_deck(build) -> None:
    inputs = build()
    context = FlyteContextManager.current_context()
    with FlyteContextManager.with_context(context.new_builder()):
        before = len(current_context().decks)
        out = evaluation.task_function(**inputs, run=PipelineRun(name="one"))
        (deck,) = current_context().decks[before:]
    assert (Path(out.path) / "report.html").read_text() in html.unescape(deck.html)
    assert not evaluation.disable_deck
    store = client(inputs["recipe"].tracking.uri)
    (experiment,) = [e for e in store.search_experiments() if e.name == "test"]
    (run,) = store.search_runs([experiment.experiment_id])
    assert run.info.run_name == "vqa_sft evaluation"
    assert {"vqa/accuracy", "vqa/accuracy_low", "vqa/no_picture"} <= run.data.metrics.keys()
    assert any(name.startswith("vqa/type/") for name in run.data.metrics)
    artifacts = {file.path for file in store.list_artifacts(run.info.run_id, "evaluation")}
    assert "evaluation/scores.json" in artifacts
