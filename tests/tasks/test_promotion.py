"""The last two steps of a pipeline on made-up reports: everything is kept, then promoted or not."""

import json
import shutil
from pathlib import Path

import pytest

from siqvl.errors import UserError
from siqvl.evaluation.gates.verdict import read_verdicts
from siqvl.recipe import Recipe
from siqvl.tracking.runs import client, start_run
from tasks.contracts import Checkpoint, EvalReport, PipelineReport, PipelineRun, PreparedData
from tasks.pipeline_report import pipeline_report
from tasks.promotion import PipelineResult, promotion
from tests.made_pipeline import Made, make_pipeline


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Made:
    return make_pipeline(tmp_path_factory.mktemp("pipeline"), questions=240)


@pytest.fixture
def recipe(made: Made, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Recipe:
    """With the gates that the made-up stages pass."""
    monkeypatch.chdir(tmp_path)  # MLflow's artifacts go to ./mlruns
    content = made.recipe.model_dump(mode="json")
    content["output_dir"] = str(tmp_path / "outputs")
    content["tracking"] = {"experiment": "test", "uri": f"sqlite:///{tmp_path}/mlflow.db"}
    content["evaluation"]["gates"] = [content["evaluation"]["gates"][index] for index in (0, 2, 3)]
    return Recipe.model_validate(content)


def with_gates(recipe: Recipe, *gates: dict) -> Recipe:
    content = recipe.model_dump(mode="json")
    content["evaluation"]["gates"] = list(gates)
    return Recipe.model_validate(content)


def opened(recipe: Recipe) -> PipelineRun:
    return PipelineRun(name="made", run_id=start_run(recipe, "made").run_id)


def reported(made: Made, recipe: Recipe, run: PipelineRun) -> PipelineReport:
    return pipeline_report(
        recipe=recipe,
        run=run,
        checkpoints=[Checkpoint(str(path)) for path in made.checkpoints],
        reports=[EvalReport(str(path)) for path in made.reports],
        controls=[EvalReport(str(made.control))],
        benchmarks=PreparedData(str(made.benchmarks)),
    )


def promoted(made: Made, recipe: Recipe, run: PipelineRun) -> PipelineResult:
    return promotion(
        recipe=recipe,
        run=run,
        checkpoint=Checkpoint(str(made.checkpoints[-1])),
        scores=EvalReport(str(made.reports[-1])),
        report=reported(made, recipe, run),
    )


FAILS = {
    "claim": "stage 1 answers better than stage 2",
    "stage": "projector_alignment",
    "benchmark": "vqa",
    "over": {"stage": "vqa_sft"},
}


def test_passed_gates_promote(made: Made, recipe: Recipe, capsys) -> None:
    run = opened(recipe)
    result = promoted(made, recipe, run)
    assert Path(result.checkpoint.path) == made.checkpoints[-1]
    assert result.mlflow_run == run.run_id
    stored = client(recipe.tracking.uri or "").get_run(run.run_id)
    assert stored.info.status == "FINISHED"
    assert stored.data.tags["siqvl.promoted"] == "true"
    assert "all 3 gates passed" in capsys.readouterr().out


def test_a_failed_gate_stops_promotion_after_everything_is_kept(
    made: Made, recipe: Recipe, tmp_path: Path
) -> None:
    first = recipe.evaluation.gates[0].model_dump(mode="json")
    recipe = with_gates(recipe, first, FAILS)
    run = opened(recipe)
    with pytest.raises(UserError) as caught:
        promoted(made, recipe, run)
    message = caught.value.message
    assert message.startswith("not promoted: 1 of 2 gates failed; ")
    assert "failed: stage 1 answers better than stage 2: 46.2 % against 93.3 %" in message
    assert "points (95 % interval −" in message
    assert first["claim"] not in message
    assert "\n" not in message

    store = client(recipe.tracking.uri or "")
    stored = store.get_run(run.run_id)
    assert stored.info.status == "FAILED"
    assert stored.data.tags["siqvl.promoted"] == "false"
    stays = "version 1 stays a candidate: 1 of 2 gates failed"
    assert stored.data.tags["siqvl.champion"] == stays
    assert stored.data.tags["siqvl.gate.02"].startswith("failed: stage 1 answers")
    assert stored.data.metrics["gate/01/passed"] == 1
    assert stored.data.metrics["gate/02/passed"] == 0
    assert stored.data.metrics["gate/02/difference"] == pytest.approx(-0.471, abs=0.01)
    assert stored.data.metrics["vqa/accuracy"] == pytest.approx(0.934, abs=0.005)
    curve = store.get_metric_history(run.run_id, "vqa/accuracy")
    assert [point.step for point in curve] == [1, 2, 3, 4]
    kept = tmp_path / "outputs" / "tiny" / "made" / "report"
    names = {"gates.json", "report.html", "stages.txt"}
    assert {path.name for path in kept.iterdir()} == names
    kept_too = names | {"evaluation"}  # the candidate's
    assert {file.path for file in store.list_artifacts(run.run_id)} == kept_too
    assert [entry["passed"] for entry in json.loads((kept / "gates.json").read_text())] == [
        True,
        False,
    ]


def aliases(recipe: Recipe) -> dict[str, int]:
    """Who holds which alias."""
    store = client(recipe.tracking.uri or "")
    found = store.get_registered_model(recipe.tracking.model_name).aliases
    return {alias: int(version) for alias, version in found.items()}


def test_only_a_promoted_candidate_becomes_the_champion(made: Made, recipe: Recipe, capsys) -> None:
    name = recipe.tracking.model_name
    failing = with_gates(recipe, FAILS)
    first = opened(failing)
    with pytest.raises(UserError, match="not promoted"):
        promoted(made, failing, first)
    store = client(recipe.tracking.uri or "")
    assert aliases(recipe) == {"candidate": 1}

    run = opened(recipe)
    promoted(made, recipe, run)
    assert aliases(recipe) == {"candidate": 1, "champion": 1}  # the same checkpoint
    sentence = store.get_run(run.run_id).data.tags["siqvl.champion"]
    assert sentence.startswith(f"version 1 of `{name}` is the champion: 81.")
    assert "of `multistep-reasoned` right, the highest floor" in sentence
    assert sentence in capsys.readouterr().out
    version = store.get_model_version(name, "1")
    assert version.tags["siqvl.evaluation"] == f"runs:/{first.run_id}/evaluation"

    again = opened(recipe)
    promoted(made, recipe, again)
    said = store.get_run(again.run_id).data.tags
    assert said["siqvl.champion"] == f"version 1 of `{name}` is the champion already"
    assert said["siqvl.promoted"] == "true"
    assert len(store.search_model_versions(f"name = '{name}'")) == 1


def test_scores_of_another_checkpoint_are_refused(made: Made, recipe: Recipe) -> None:
    run = opened(recipe)
    with pytest.raises(UserError, match="holds the scores of another checkpoint"):
        promotion(
            recipe=recipe,
            run=run,
            checkpoint=Checkpoint(str(made.checkpoints[-1])),
            scores=EvalReport(str(made.reports[-2])),
            report=reported(made, recipe, run),
        )
    assert client(recipe.tracking.uri or "").get_run(run.run_id).info.status == "FAILED"


@pytest.mark.parametrize("known", [False, True], ids=["new", "registered before"])
def test_a_checkpoint_that_was_changed_is_refused(
    made: Made, recipe: Recipe, tmp_path: Path, known: bool
) -> None:
    if known:
        promoted(made, recipe, opened(recipe))
    changed = Path(shutil.copytree(made.checkpoints[-1], tmp_path / "changed"))
    (changed / "model.safetensors").write_bytes(b"other weights")
    run = opened(recipe)
    with pytest.raises(UserError, match=f"checkpoint {changed} is not the one that its siqvl.json"):
        promotion(
            recipe=recipe,
            run=run,
            checkpoint=Checkpoint(str(changed)),
            scores=EvalReport(str(made.reports[-1])),
            report=reported(made, recipe, run),
        )
    assert client(recipe.tracking.uri or "").get_run(run.run_id).info.status == "FAILED"


def test_the_tables_end_the_report(made: Made, recipe: Recipe, capsys) -> None:
    report = reported(made, recipe, opened(recipe))
    tables = (Path(report.path) / "stages.txt").read_text()
    printed = capsys.readouterr().out
    assert tables in printed
    assert "projector_alignment, random tower  vqa" in tables
    assert tables.rstrip().endswith("all 3 gates passed")
    for verdict in read_verdicts(Path(report.path)):
        assert verdict.claim in tables


def test_without_gates_it_says_that_nothing_was_tested(made: Made, recipe: Recipe, capsys) -> None:
    recipe = with_gates(recipe)
    run = opened(recipe)
    promoted(made, recipe, run)
    assert "nothing was tested: the recipe has no gates" in capsys.readouterr().out
    stored = client(recipe.tracking.uri or "").get_run(run.run_id)
    assert stored.data.tags["siqvl.promoted"] == "true"
    assert stored.info.status == "FINISHED"


def test_a_report_that_cannot_be_made_leaves_a_failed_run(
    made: Made, recipe: Recipe, tmp_path: Path
) -> None:
    run = opened(recipe)
    missing = [EvalReport(str(tmp_path))]
    with pytest.raises(UserError, match="is no evaluation report"):
        pipeline_report(
            recipe=recipe,
            run=run,
            checkpoints=[],
            reports=missing,
            controls=[],
            benchmarks=PreparedData(str(made.benchmarks)),
        )
    assert client(recipe.tracking.uri or "").get_run(run.run_id).info.status == "FAILED"
