"""A sweep on this machine: every point trained, scored and ranked, all in one MLflow run."""

import json
import re
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

from siqvl.checkpoint import read_card
from siqvl.evaluation.benchmarks.prepare_benchmarks import prepare_benchmarks
from siqvl.evaluation.scoring.scores import Scores
from siqvl.recipe import Recipe, Stage
from siqvl.tracking.runs import client

STAGE = Stage.VQA_SFT


@pytest.fixture
def recipe(checkout: Path, tmp_path: Path, small_recipe: Callable[..., Recipe]) -> Recipe:
    """The small recipe, written to the checkout as `sweep.yaml`."""
    made = small_recipe(tmp_path)
    (checkout / "recipes" / "sweep.yaml").write_text(yaml.safe_dump(made.model_dump(mode="json")))
    return made


def sweep_of(trained, tmp_path: Path, grid: object, stage: Stage = STAGE) -> list[str]:
    """The command line of a sweep."""
    parent = trained.parent(stage)
    return [
        *("run", "workflows/sweep.py", "sweep", "--stage", stage.value),
        *("--data", str(trained.data(stage)), "--benchmarks", str(tmp_path / "benchmarks")),
        *(["--checkpoint", str(parent)] if parent else []),
        *("--grid", json.dumps({"values": grid}), "--recipe", "recipes/sweep.yaml"),
    ]


def runs(recipe: Recipe) -> tuple:
    """The sweep's run, and its children by name."""
    store = client(recipe.tracking.uri or "")
    experiment = store.get_experiment_by_name(recipe.tracking.experiment)
    found = store.search_runs([experiment.experiment_id])
    (parent,) = [run for run in found if run.data.tags.get("siqvl.kind") == "sweep"]
    children = {run.info.run_name: run for run in found if run is not parent}
    tags = [child.data.tags["mlflow.parentRunId"] for child in children.values()]
    assert set(tags) == {parent.info.run_id}
    assert len(children) == len(found) - 1
    return store, parent, children


@pytest.mark.integration
def test_a_sweep_of_two_rates(
    pyflyte, checkout: Path, trained, recipe: Recipe, tmp_path: Path
) -> None:
    prepare_benchmarks(recipe, tmp_path / "benchmarks")
    rates = [0.0005, 0.01]
    grid = {"learning_rate": rates, "batch_size": [8]}
    printed = pyflyte(*sweep_of(trained, tmp_path, grid), folder=checkout)

    names = [f"learning_rate={rate}, batch_size=8" for rate in rates]
    store, parent, children = runs(recipe)
    assert parent.info.status == "FINISHED"
    assert parent.data.params["points"] == "2"
    assert set(children) == set(names)
    assert {child.info.status for child in children.values()} == {"FINISHED"}
    (place,) = (Path(recipe.output_dir) / recipe.name).iterdir()
    assert place.name.startswith("sweep-")
    scores = {}
    for folder in place.iterdir():
        figures = read_card(folder / STAGE.value).todays_recipe().stage(STAGE)
        assert figures.batch_size == 8
        name = f"learning_rate={figures.learning_rate}, batch_size=8"
        scores[name] = Scores.read(folder / "evaluation").scores[0].players["picture"].mean
        assert children[name].data.params["recipe.learning_rate"] == str(figures.learning_rate)
        assert children[name].data.metrics["vqa/accuracy"] == pytest.approx(scores[name])
        artifacts = {file.path for file in store.list_artifacts(children[name].info.run_id)}
        assert {"checkpoint", "evaluation"} <= artifacts
    assert set(scores) == set(names)

    lines = re.findall(rf"^\s*vqa +({'|'.join(names)}) +12 +(\S+)", printed, re.MULTILINE)
    order = sorted(names, key=lambda name: -scores[name])
    expected = [(name, f"{100 * scores[name]:.1f}") for name in order]
    assert lines[:2] == expected
    table = Path(store.download_artifacts(parent.info.run_id, "ranking.txt")).read_text()
    assert table.strip() in printed
    curve = store.get_metric_history(parent.info.run_id, "vqa/accuracy")
    assert [point.value for point in curve] == [pytest.approx(scores[name]) for name in names]


@pytest.mark.integration
def test_a_sweep_of_the_first_stage_takes_no_checkpoint_and_fails_as_one(
    pyflyte, checkout: Path, trained, recipe: Recipe, tmp_path: Path
) -> None:
    """The second point cannot be trained: no row fits into five tokens."""
    prepare_benchmarks(recipe, tmp_path / "benchmarks")
    first = Stage.PROJECTOR_ALIGNMENT
    arguments = sweep_of(trained, tmp_path, {"max_length": [512, 5]}, first)
    printed = pyflyte(*arguments, folder=checkout, code=1)
    assert "Traceback" not in printed
    _, parent, children = runs(recipe)
    assert parent.info.status == "FAILED"
    found = {name: child.info.status for name, child in children.items()}
    assert found == {"max_length=512": "FINISHED", "max_length=5": "FAILED"}


@pytest.mark.integration
@pytest.mark.parametrize(
    ("grid", "message"),
    [
        (
            {"learning_rat": [0.1]},
            "grid (learning_rat=0.1): recipe: unknown key `stages.vqa_sft.learning_rat`, did you "
            "mean `learning_rate`?",
        ),
        ({"learning_rate": [0.1, -1]}, "`stages.vqa_sft.learning_rate`: Input should be greater"),
    ],
)
def test_a_grid_that_is_wrong_is_one_line_before_any_work(
    pyflyte, checkout: Path, trained, recipe: Recipe, tmp_path: Path, grid: dict, message: str
) -> None:
    (tmp_path / "benchmarks").mkdir()
    printed = pyflyte(*sweep_of(trained, tmp_path, grid), folder=checkout, code=1)
    assert message in " ".join(re.findall(r"│\s*(.*?)\s*│", printed))
    assert "Traceback" not in printed
    assert {path.name for path in tmp_path.iterdir()} == {"benchmarks"}
