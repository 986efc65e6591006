"""The history of a checkpoint: what was logged, and nothing that changes the model's hash."""

import json
import math
from pathlib import Path

import pytest
from safetensors.torch import load_file

from siqvl.checkpoint import HISTORY, content_hash, read_history, training_history, write_history
from siqvl.errors import UserError
from siqvl.recipe import PIPELINE, Stage

#: As transformers' Trainer logs it: steps, and a summary when it ends.
TRAINER_LOG = [
    {"loss": 2.5, "grad_norm": 1.0, "learning_rate": 1e-3, "epoch": 0.5, "step": 1},
    {"loss": math.nan, "grad_norm": math.inf, "learning_rate": 5e-4, "epoch": 1.0, "step": 2},
    {"train_runtime": 3.0, "train_loss": 2.0, "total_flos": 1e9, "epoch": 1.0, "step": 2},
]


def test_steps_are_kept_and_the_summary_is_not(tmp_path: Path) -> None:
    history = training_history(TRAINER_LOG)
    assert [entry["step"] for entry in history] == [1, 2]
    assert [entry["loss"] for entry in history] == [2.5, None]
    write_history(history, tmp_path)
    assert read_history(tmp_path) == history
    assert "NaN" not in (tmp_path / HISTORY).read_text()  # which is no JSON
    write_history([], tmp_path)
    assert read_history(tmp_path) == []


def test_a_checkpoint_without_a_history_has_an_empty_one(tmp_path: Path) -> None:
    assert read_history(tmp_path) == []
    (tmp_path / HISTORY).write_text("[{")
    with pytest.raises(UserError, match=r"history\.json is damaged"):
        read_history(tmp_path)


@pytest.mark.parametrize("stage", list(PIPELINE), ids=str)
def test_every_stage_keeps_its_steps(trained, stage: Stage) -> None:
    history = json.loads((trained.checkpoint(stage) / HISTORY).read_text())
    assert [entry["step"] for entry in history] == [1, 2]  # as the recipe's max_steps says
    assert all(entry["loss"] > 0 and entry["learning_rate"] is not None for entry in history)


def test_the_history_is_no_part_of_the_hash(trained, tmp_path: Path) -> None:
    source = trained.checkpoint(Stage.DPO)
    for path in source.iterdir():
        if path.is_file():
            (tmp_path / path.name).write_bytes(path.read_bytes())
    before = content_hash(tmp_path)
    assert before == content_hash(source)
    write_history([{"step": 1, "loss": 0.0}], tmp_path)
    assert content_hash(tmp_path) == before
    weights = tmp_path / "model.safetensors"
    assert load_file(weights)
    weights.write_bytes(weights.read_bytes() + b"x")
    assert content_hash(tmp_path) != before
