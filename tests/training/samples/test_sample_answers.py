"""Asking a model in training changes nothing about what it becomes."""

import json
import logging
import random
from pathlib import Path

import numpy as np
import pytest
import torch

from siqvl.data.schema import RowKind
from siqvl.data.shards import load_prepared
from siqvl.model.assemble import load_checkpoint
from siqvl.recipe import Recipe, Stage
from siqvl.tracking.outbox import OutboxPlace
from siqvl.tracking.runs import RunLog, client, start_run
from siqvl.tracking.sample_table import TABLE
from siqvl.training.samples.sample_answers import SampleAnswers
from siqvl.training.samples.sample_rows import latest_rows
from siqvl.training.samples.undisturbed import undisturbed
from siqvl.training.stage import train_stage
from tests.training.changed_recipe import changed
from tests.training.made_trainer import made_trainer


@pytest.fixture(autouse=True)
def _the_store(trained, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)  # a sqlite store keeps its artifacts in ./mlruns
    # `MlflowClient.load_table` looks for runs there, whatever store the client is of
    monkeypatch.setenv("MLFLOW_TRACKING_URI", trained.recipe.tracking.uri)


def with_samples(recipe: Recipe, **tracking: object) -> Recipe:
    content = recipe.model_dump(mode="json")
    content["tracking"] |= {"sample_tokens": 8, **tracking}
    return Recipe.model_validate(content)


def trained_with(trained, stage: Stage, recipe: Recipe, out: Path) -> RunLog:
    log = start_run(recipe, stage.value)
    train_stage(
        stage,
        recipe,
        data=trained.data(stage),
        checkpoint=trained.parent(stage),
        output=out,
        log=log,
    )
    assert log.flush()
    return log


@pytest.mark.parametrize(
    ("stage", "figures"),
    [
        (Stage.PROJECTOR_ALIGNMENT, {}),
        pytest.param(
            Stage.VQA_SFT,
            {"gradient_checkpointing": True, "batching": "packed"},
            marks=pytest.mark.integration,
        ),
        (Stage.DPO, {"cached_features": True}),
    ],
    ids=str,
)
def test_training_comes_to_the_same_weights_bit_for_bit(
    trained, tmp_path: Path, stage: Stage, figures: dict
) -> None:
    recipe = changed(trained.recipe, stage, max_steps=3, **figures)
    weights, losses = [], []
    for name, samples in (("without", 0), ("with", 4)):
        asked = with_samples(recipe, samples=samples, samples_every=1)
        log = trained_with(trained, stage, asked, tmp_path / name)
        weights.append((tmp_path / name / "model.safetensors").read_bytes())
        history = json.loads((tmp_path / name / "history.json").read_text())
        losses.append([(entry["loss"], entry["grad_norm"]) for entry in history])
    assert weights[0] == weights[1]
    assert losses[0] == losses[1]
    assert len(losses[0]) == 3

    table = client(log.uri).load_table(experiment_of(log), TABLE, run_ids=[log.run_id])
    assert table["step"].tolist() == [step for step in (3, 2, 1, 0) for _ in range(4)]
    rows, _ = load_prepared(trained.data(stage), RowKind(kind_of(stage)), verify=False)
    by_id = {row["id"]: row for row in rows}
    for sample in table.itertuples():
        row = by_id[sample.sample]
        assert sample.question == row["prompt"][-1]["content"]
        assert sample.gold == row[column_of(stage)][-1]["content"]


def kind_of(stage: Stage) -> str:
    return "preference" if stage is Stage.DPO else "sft"


def column_of(stage: Stage) -> str:
    return "chosen" if stage is Stage.DPO else "completion"


def experiment_of(log: RunLog) -> str:
    return client(log.uri).get_run(log.run_id).info.experiment_id


def test_answers_are_those_of_generate(trained, tmp_path: Path) -> None:
    """The last answers, against transformers' own generation from the checkpoint, row by row."""
    recipe = with_samples(trained.recipe, samples=3)
    log = trained_with(trained, Stage.VQA_SFT, recipe, tmp_path / "out")
    table = client(log.uri).load_table(experiment_of(log), TABLE, run_ids=[log.run_id])
    assert table["step"].tolist() == [2, 2, 2]
    model, processor = load_checkpoint(tmp_path / "out", attn_implementation="eager")
    rows, _ = load_prepared(trained.data(Stage.VQA_SFT), RowKind.SFT, verify=False)
    by_id = {row["id"]: row for row in rows}
    for sample in table.itertuples():
        row = by_id[sample.sample]
        content = [{"type": "image"}, {"type": "text", "text": sample.question}]
        text = processor.apply_chat_template(
            [{"role": "user", "content": content}], add_generation_prompt=True
        )
        inputs = processor(text=[text], images=row["images"], return_tensors="pt")
        written = model.generate(**inputs, max_new_tokens=8, do_sample=False)
        new = written[0, inputs["input_ids"].shape[1] :]
        assert sample.answer == processor.decode(new, skip_special_tokens=True).strip()


def test_no_samples_and_no_log_are_no_callback(trained, tmp_path: Path) -> None:
    log = trained_with(trained, Stage.VQA_SFT, with_samples(trained.recipe, samples=0), tmp_path)
    assert TABLE not in {file.path for file in client(log.uri).list_artifacts(log.run_id)}


def seed_all() -> None:
    random.seed(1)
    np.random.seed(1)
    torch.manual_seed(1)


def draw() -> list[float]:
    return [random.random(), np.random.random(), torch.rand(1).item()]


def drawn_from_the_start() -> list[float]:
    seed_all()
    return draw()


def test_what_is_asked_leaves_modes_random_numbers_and_kernels_as_they_were(trained) -> None:
    model, _ = load_checkpoint(
        trained.checkpoint(Stage.PROJECTOR_ALIGNMENT), attn_implementation="sdpa"
    )
    model.train()
    model.model.vision_tower.eval()
    model.model.language_model.layers[0].eval()  # whatever it was
    before = [module.training for module in model.modules()]
    expected = drawn_from_the_start()
    seed_all()
    with undisturbed(model, "eager"):
        assert not any(module.training for module in model.modules())
        assert model.config.text_config._attn_implementation == "eager"
        draw()
    assert draw() == expected
    assert [module.training for module in model.modules()] == before
    assert model.config.text_config._attn_implementation == "sdpa"


def test_rows_are_those_that_training_comes_to_last(trained, tmp_path: Path) -> None:
    """Two steps of four rows see eight of twenty-four: the samples are among the others."""
    trainer = made_trainer(trained, trained.recipe, tmp_path)
    plan = trainer.loader.plan
    seen = {item for step in range(2) for item in plan.batch(step)}
    picked = latest_rows(plan, 24, 4)
    assert len(set(picked)) == 4
    assert not seen & set(picked)
    assert latest_rows(plan, 24, 4) == picked
    assert len(latest_rows(plan, 24, 100)) == 24


def test_the_times_a_row_was_trained_on_are_counted(trained, tmp_path: Path) -> None:
    recipe = changed(trained.recipe, Stage.VQA_SFT, max_steps=13)  # 52 of 24 rows: twice and some
    log = trained_with(
        trained, Stage.VQA_SFT, with_samples(recipe, samples=3, samples_every=6), tmp_path / "out"
    )
    plan = made_trainer(trained, recipe, tmp_path / "work").loader.plan
    table = client(log.uri).load_table(experiment_of(log), TABLE, run_ids=[log.run_id])
    rows, _ = load_prepared(trained.data(Stage.VQA_SFT), RowKind.SFT, verify=False)
    numbers = {id: number for number, id in enumerate(rows["id"])}
    assert sorted(set(table["step"])) == [0, 6, 12, 13]
    for sample in table.itertuples():
        shown = [item for step in range(sample.step) for item in plan.batch(step)]
        assert sample.trained_on == shown.count(numbers[sample.sample])


def test_fsdp_is_one_line_in_the_log(trained, tmp_path: Path, caplog) -> None:
    trainer = made_trainer(trained, trained.recipe, tmp_path)
    content = with_samples(trained.recipe, samples=2).model_dump(mode="json")
    content["distributed"] |= {"enabled": True, "processes": 2, "strategy": "fsdp"}
    log = RunLog("sqlite:///never.db", "0", OutboxPlace(tmp_path / "spool", 0.0))
    with caplog.at_level(logging.WARNING):
        recipe = Recipe.model_validate(content)
        assert SampleAnswers.of(trainer, recipe, None, None, None, "fp32", log) is None
    assert "with fsdp no process has the whole model" in caplog.text
