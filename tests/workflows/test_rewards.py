"""Learning from rewards as a workflow: from a checkpoint to a version whose gates are judged."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from siqvl.checkpoint import read_card
from siqvl.evaluation.scoring.scores import Scores
from siqvl.recipe import Recipe, Stage
from siqvl.tracking.runs import client
from tasks.contracts import Checkpoint
from tests.small_checkpoint import small_checkpoint
from tests.small_recipe import ROOT
from workflows.rewards import rewards


def small_rewards(recipe: Recipe) -> Recipe:
    """The small recipe with the stage, its benchmark and a gate that two steps cannot fail."""
    content = recipe.model_dump(mode="json")
    whole = Recipe.load(ROOT / "recipes" / "rewards.yaml").model_dump(mode="json")
    content["stages"]["rlvr"] = whole["stages"]["rlvr"] | {
        "max_steps": 2,
        "batch_size": 8,
        "group_size": 4,
        "max_new_tokens": 20,
        "precision": "fp32",
        "logging_steps": 1,
    }
    content["stages"]["rlvr"]["sources"][0]["max_samples"] = 24
    asked = [one for one in whole["evaluation"]["benchmarks"] if one["name"] == "vqa"]
    asked[0]["source"]["max_samples"] = 12
    asked[0]["training"]["max_samples"] = 50
    gate = {"claim": "c", "stage": "rlvr", "benchmark": "vqa", "over": {"stage": "cot_sft"}}
    content["evaluation"] |= {"benchmarks": asked, "gates": [gate | {"above": -0.999}]}
    return Recipe.model_validate(content)


@pytest.mark.integration
def test_from_a_checkpoint_to_a_version(
    tmp_path: Path, small_recipe: Callable[..., Recipe], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)  # MLflow's artifacts go to ./mlruns
    recipe = small_rewards(small_recipe(tmp_path))
    before = small_checkpoint(tmp_path, stage=Stage.COT_SFT)
    result = rewards(checkpoint=Checkpoint(str(before)), recipe=recipe)

    card = read_card(Path(result.checkpoint.path))
    assert (card.stage, card.parent_stage) == (Stage.RLVR, Stage.COT_SFT)
    assert card.parent == read_card(before).hash
    assert {"reward", "frac_reward_zero_std"} <= {
        name for entry in json.loads((Path(result.checkpoint.path) / "history.json").read_text())
        for name in entry
    }  # fmt: skip
    (run,) = (Path(recipe.output_dir) / recipe.name).iterdir()
    assert Scores.read(run / "evaluation" / "rlvr").stage is Stage.RLVR
    table = (run / "report" / "stages.txt").read_text()
    assert "rlvr " in table
    assert "cot_sft " in table
    assert "dpo" not in table
    page = (run / "report" / "report.html").read_text()
    assert "reward of rewards: from" in page

    store = client(recipe.tracking.uri or "")
    parent = store.get_run(result.mlflow_run)
    assert parent.info.status == "FINISHED"
    assert parent.data.metrics["gate/01/passed"] == 1
    aliases = store.get_registered_model(recipe.tracking.model_name).aliases
    version = store.get_model_version(recipe.tracking.model_name, aliases["candidate"])
    assert version.tags["siqvl.stage"] == "rlvr"
    trained = store.get_run(version.run_id)
    assert "train/rewards/answer/mean" in trained.data.metrics
    kept = {file.path for file in store.list_artifacts(version.run_id)}
    assert {"loss.html", "samples.json"} <= kept
