"""Two processes train, the first of them answers samples between steps: nobody waits for ever."""

from pathlib import Path

import pytest

from siqvl.recipe import Recipe, Stage
from siqvl.tracking.runs import client, start_run
from siqvl.tracking.sample_table import TABLE
from siqvl.training.stage import train_stage

pytestmark = pytest.mark.integration


def test_two_processes_come_to_the_same_weights_with_samples(
    trained, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)  # a sqlite store keeps its artifacts in ./mlruns
    content = trained.recipe.model_dump(mode="json")
    content["distributed"] |= {"enabled": True, "processes": 2}
    content["stages"]["vqa_sft"]["max_steps"] = 3
    weights = []
    for samples in (0, 2):
        content["tracking"] |= {"samples": samples, "samples_every": 1, "sample_tokens": 4}
        recipe = Recipe.model_validate(content)
        log = start_run(recipe, "two processes")
        out = tmp_path / f"with-{samples}"
        train_stage(
            Stage.VQA_SFT,
            recipe,
            data=trained.data(Stage.VQA_SFT),
            checkpoint=trained.parent(Stage.VQA_SFT),
            output=out,
            log=log,
        )
        weights.append((out / "model.safetensors").read_bytes())
    assert weights[0] == weights[1]
    # `load_table` looks for runs in the store of this variable, whatever store its client is of
    monkeypatch.setenv("MLFLOW_TRACKING_URI", log.uri)
    experiment = client(log.uri).get_run(log.run_id).info.experiment_id
    table = client(log.uri).load_table(experiment, TABLE, run_ids=[log.run_id])
    assert table["step"].tolist() == [3, 3, 2, 2, 1, 1, 0, 0]  # from one process alone
