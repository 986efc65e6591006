"""Every task as a plain function, one after the other, as the workflow chains them."""

from collections.abc import Callable
from pathlib import Path

import pytest

from siqvl.checkpoint import read_card
from siqvl.errors import UserError
from siqvl.evaluation.scoring.scores import Scores
from siqvl.recipe import PIPELINE, Recipe, Stage
from siqvl.serving.package import WEIGHTS
from siqvl.tracking.runs import client
from tasks.contracts import Checkpoint, Preparation, PreparedData
from tasks.cot_sft import cot_sft
from tasks.data_prep import data_prep
from tasks.dpo import dpo
from tasks.evaluation import evaluation
from tasks.pipeline_report import pipeline_report
from tasks.pipeline_run import open_run
from tasks.projector_alignment import projector_alignment
from tasks.promotion import promotion
from tasks.vqa_sft import vqa_sft

TRAINING = {
    Stage.PROJECTOR_ALIGNMENT: projector_alignment,
    Stage.VQA_SFT: vqa_sft,
    Stage.COT_SFT: cot_sft,
    Stage.DPO: dpo,
}


@pytest.fixture
def recipe(
    tmp_path: Path, small_recipe: Callable[..., Recipe], monkeypatch: pytest.MonkeyPatch
) -> Recipe:
    monkeypatch.chdir(tmp_path)  # MLflow's artifacts go to ./mlruns
    return small_recipe(tmp_path)


@pytest.mark.integration
def test_all_tasks_in_a_row(recipe: Recipe, monkeypatch: pytest.MonkeyPatch) -> None:
    run = open_run(recipe=recipe).run
    benchmarks = data_prep(stage=Preparation.EVALUATION, recipe=recipe, run=run)
    checkpoints, reports = [], []
    for stage, task in TRAINING.items():
        data = data_prep(stage=Preparation(stage.value), recipe=recipe, run=run)
        inputs = {"data": data, "recipe": recipe, "run": run}
        if checkpoints:
            inputs["checkpoint"] = checkpoints[-1]
        checkpoint = task(**inputs)
        checkpoints.append(checkpoint)
        assert read_card(Path(checkpoint.path)).stage is stage
        reports.append(evaluation(checkpoint=checkpoint, data=benchmarks, recipe=recipe, run=run))
    report = pipeline_report(
        recipe=recipe,
        run=run,
        checkpoints=checkpoints,
        reports=reports,
        controls=[],
        benchmarks=benchmarks,
    )
    result = promotion(
        recipe=recipe, run=run, checkpoint=checkpoints[-1], scores=reports[-1], report=report
    )

    assert Path(result.checkpoint.path) == Path(checkpoints[-1].path)
    assert result.mlflow_run == run.run_id
    kept = Path(recipe.output_dir) / recipe.name / run.name / "report"
    table, _, gates = (kept / "stages.txt").read_text().partition("\n\n")
    assert table.count("\n") == 1 + len(PIPELINE)  # header, rule, one benchmark a stage
    scored, _, gates = gates.partition("\n\n")
    assert scored == "vqa: generation, exact_match/1"
    assert gates == "nothing was tested: the recipe has no gates\n"
    scores = Scores.read(Path(reports[-1].path))
    assert scores.stage is Stage.DPO
    assert scores.scores[0].questions == 12
    assert scores.scores[0].prompt.startswith("<|im_start|>user\n<|vision_start|><|image_pad|>")
    assert {path.name for path in Path(reports[-1].path).iterdir()} == {
        "scores.json",
        "predictions.parquet",
        "report.html",
    }
    # `MlflowClient.load_table` looks for runs there, whatever store the client is of
    monkeypatch.setenv("MLFLOW_TRACKING_URI", recipe.tracking.uri or "")
    _check_tracking(recipe, run.run_id)


def _check_tracking(recipe: Recipe, parent_id: str) -> None:
    store = client(recipe.tracking.uri or "")
    parent = store.get_run(parent_id)
    assert parent.info.status == "FINISHED"
    assert parent.data.params["stages.dpo.beta"] == "1.0"
    assert "vqa/accuracy" in parent.data.metrics
    children = {
        child.info.run_name: child
        for child in store.search_runs(
            [parent.info.experiment_id], f"tags.mlflow.parentRunId = '{parent_id}'"
        )
    }
    expected = {"evaluation data"}
    for stage in PIPELINE:
        expected |= {f"{stage} data", str(stage), f"{stage} evaluation"}
    assert set(children) == expected
    assert {child.info.status for child in children.values()} == {"FINISHED"}
    for stage in PIPELINE:
        run = children[str(stage)]
        curve = store.get_metric_history(run.info.run_id, "train/loss")
        assert [point.step for point in curve] == [1, 2]
        assert run.data.params["recipe.learning_rate"] == str(recipe.stage(stage).learning_rate)
        (output,) = run.outputs.model_outputs
        kept = store.list_logged_model_artifacts(output.model_id, WEIGHTS)
        assert {f"{WEIGHTS}/{name}" for name in ("model.safetensors", "siqvl.json")} <= {
            file.path for file in kept
        }
        kept = {file.path for file in store.list_artifacts(run.info.run_id)}
        assert {"recipe.yaml", "environment.txt", "loss.html", "samples.json"} <= kept
        assert "checkpoint" not in kept  # stored once
        scoring = children[f"{stage} evaluation"]
        assert 0 <= scoring.data.metrics["vqa/accuracy"] <= 1
        (rows,), (questions,) = run.inputs.dataset_inputs, scoring.inputs.dataset_inputs
        assert run.data.params["data_fingerprint"].startswith(rows.dataset.digest)
        assert questions.dataset.name == "shapes vqa test"
        own = store.load_table(parent.info.experiment_id, "samples.json", [scoring.info.run_id])
        assert len(own) == 12  # the benchmark's questions, of which it has few
    kept = {file.path for file in store.list_artifacts(parent_id)}
    assert {"recipe.yaml", "environment.txt", "stages.txt"} <= kept
    versions = store.search_model_versions(f"name = '{recipe.tracking.model_name}'")
    made = {version.run_id: version for version in versions}
    stages = {made[children[str(stage)].info.run_id].tags["siqvl.stage"] for stage in PIPELINE}
    assert stages == set(PIPELINE)
    last = made[children[str(Stage.DPO)].info.run_id]
    aliases = store.get_registered_model(recipe.tracking.model_name).aliases
    assert int(aliases["candidate"]) == int(last.version)
    assert last.tags["siqvl.evaluation"] == f"runs:/{parent_id}/evaluation"
    # two steps teach what chance decides; the sentence says who is champion
    champion = f"version {last.version} of `{recipe.tracking.model_name}` is the champion: "
    assert parent.data.tags["siqvl.champion"].startswith(champion) is ("champion" in aliases)


def test_a_failed_stage_leaves_failed_runs(recipe: Recipe, tmp_path: Path) -> None:
    run = open_run(recipe=recipe).run
    with pytest.raises(UserError, match=r"is no SiQ-VL checkpoint"):
        vqa_sft(
            checkpoint=Checkpoint(str(tmp_path)),
            data=PreparedData(str(tmp_path)),
            recipe=recipe,
            run=run,
        )
    store = client(recipe.tracking.uri or "")
    parent = store.get_run(run.run_id)
    assert parent.info.status == "FAILED"
    (child,) = store.search_runs(
        [parent.info.experiment_id], f"tags.mlflow.parentRunId = '{run.run_id}'"
    )
    assert child.info.status == "FAILED"


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        (("model", "vision"), "nowhere/at/all", "model.vision: nowhere/at/all is neither a folder"),
        (
            ("stages", "vqa_sft", "sources"),
            [{"kind": "easy_vqa", "path": "missing_folder"}],
            "missing_folder",
        ),
        (
            ("stages", "dpo", "sources"),
            [{"kind": "easy_vqa", "path": "${SIQVL_NOT_SET}/easy_vqa"}],
            "SIQVL_NOT_SET",
        ),
        (("stages", "cot_sft", "sources"), [{"kind": "shape", "max_samples": 1}], "shape"),
    ],
    ids=["model folder", "data folder", "variable", "source kind"],
)
def test_what_is_missing_is_one_line_before_any_work(
    recipe: Recipe, path: tuple[str, ...], value: object, message: str
) -> None:
    content = recipe.model_dump(mode="json")
    target = content
    for key in path[:-1]:
        target = target[key]
    target[path[-1]] = value
    with pytest.raises(UserError) as caught:
        open_run(recipe=Recipe.model_validate(content))
    assert message in caught.value.message
    assert "\n" not in caught.value.message
    assert not Path(recipe.output_dir).exists()
    assert not Path("mlflow.db").exists()
