"""Rows without a picture teach the language model, and are left out where it learns nothing."""

import json
import logging
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from siqvl.checkpoint import read_history
from siqvl.data.preparation.prepare import prepare
from siqvl.errors import UserError
from siqvl.recipe import Recipe, Source, Stage
from siqvl.stages import STAGES
from siqvl.tracking.runs import client, stage_run
from siqvl.training.stage import train_stage
from tests.data.made_pictures import picture
from tests.training.changed_recipe import changed

ALIGNMENT = Stage.PROJECTOR_ALIGNMENT
REASON = "no picture: the language model does not learn"
PROJECTOR = "model.multi_modal_projector.linear.weight"
#: The rows are of 45 tokens or less; a pack takes two of them.
BATCHINGS = {
    "padded": {"batching": "padded"},
    "grouped": {"batching": "grouped"},
    "packed": {"batching": "packed", "max_length": 64, "pack_length": 120},
}
DIVISIONS = {
    "alone": {},
    "accumulated": {"batch_size": 1, "accumulation": 4},
    "two processes": {"batch_size": 2},
}


@pytest.fixture(autouse=True)
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)  # MLflow's artifacts go to ./mlruns


def source(folder: Path, *, texts: int, pictures: int, pairs: bool = False) -> Source:
    """A table: rows of text alone, then rows about a red picture."""
    folder.mkdir()
    (folder / "red.png").write_bytes(picture("red"))
    lines = [{"question": f"{one} + 1?", "answer": f"{one + 1}"} for one in range(texts)]
    lines += [
        {"image": "red.png", "question": f"Color, {one}?", "answer": "red"}
        for one in range(pictures)
    ]
    if pairs:
        for line in lines:
            line |= {"chosen": line.pop("answer"), "rejected": "a blue circle"}
    (folder / "train.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    return Source(kind="table", path=str(folder))


def prepared(recipe: Recipe, stage: Stage, folder: Path, **rows: int) -> tuple[Recipe, Path]:
    table = source(folder / "table", **rows, pairs=stage is Stage.DPO)
    recipe = changed(recipe, stage, sources=[table.model_dump(mode="json")])
    out = folder / "data"
    prepare([table], STAGES[stage].rows, out, data=recipe.data, seed=0)
    return recipe, out


def divided(recipe: Recipe, stage: Stage, division: str, **options: object) -> Recipe:
    recipe = changed(recipe, stage, **(options | DIVISIONS[division]))
    content = recipe.model_dump(mode="json")
    several = division == "two processes"
    content["distributed"] = {"enabled": several, "processes": 2 if several else 1}
    return Recipe.model_validate(content)


@pytest.mark.integration
@pytest.mark.usefixtures("quick_children")
@pytest.mark.parametrize(
    ("batching", "division", "cached"),
    [
        ("padded", "alone", False),
        ("padded", "accumulated", True),
        ("padded", "two processes", False),
        ("grouped", "alone", True),
        ("grouped", "accumulated", False),
        ("grouped", "two processes", True),
        ("packed", "alone", False),
        ("packed", "alone", True),
        ("packed", "accumulated", False),
        ("packed", "two processes", True),
    ],
)
def test_the_projector_alone_learns_from_the_rows_with_pictures(
    tmp_path: Path,
    small_recipe: Callable[..., Recipe],
    batching: str,
    division: str,
    cached: bool,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Eight of sixteen rows have none; they change nothing but the count."""
    options = {**BATCHINGS[batching], "cached_features": cached, "max_steps": None, "epochs": 1}
    weights = []
    for texts in (8, 0):
        folder = tmp_path / str(texts)
        folder.mkdir()
        recipe, data = prepared(small_recipe(tmp_path), ALIGNMENT, folder, texts=texts, pictures=8)
        recipe = divided(recipe, ALIGNMENT, division, **options)
        with caplog.at_level(logging.WARNING), stage_run(recipe, "run", None, {}) as log:
            card = train_stage(
                ALIGNMENT, recipe, data=data, checkpoint=None, output=folder / "out", log=log
            )
        assert card.metrics["rows"] == 8
        assert card.metrics["rows_left_out"] == texts
        logged = client(log.uri).get_run(log.run_id).data.metrics
        assert logged.get(f"data/left_out/{REASON}", 0) == texts
        weights.append(load_file(folder / "out" / "model.safetensors"))
    if division != "two processes":  # whose log is their own
        assert f"8 of 16 rows were left out: {REASON}" in caplog.text
    for name, value in weights[0].items():
        assert torch.equal(value, weights[1][name]), name


def test_a_stage_in_which_only_the_projector_learns_needs_a_picture(
    tmp_path: Path, small_recipe: Callable[..., Recipe]
) -> None:
    recipe, data = prepared(small_recipe(tmp_path), ALIGNMENT, tmp_path, texts=3, pictures=0)
    with pytest.raises(UserError, match=r"none of 3 rows has a picture.*language_model"):
        train_stage(ALIGNMENT, recipe, data=data, checkpoint=None, output=tmp_path / "out")


@pytest.mark.integration
@pytest.mark.usefixtures("quick_children")
@pytest.mark.parametrize(
    ("batching", "division", "cached"),
    [
        ("padded", "two processes", False),
        ("grouped", "accumulated", True),
        ("packed", "alone", False),
        ("packed", "two processes", True),
    ],
)
@pytest.mark.parametrize("stage", [Stage.VQA_SFT, Stage.DPO])
def test_the_language_model_learns_from_text_alone(
    trained, tmp_path: Path, stage: Stage, batching: str, division: str, cached: bool
) -> None:
    """No batch has a picture: the projector stays as it was to the bit."""
    recipe, data = prepared(trained.recipe, stage, tmp_path, texts=16, pictures=0)
    options = {**BATCHINGS[batching], "cached_features": cached, "weight_decay": 0.0}
    if stage is Stage.DPO and batching == "packed":
        options["pack_length"] = 240
    recipe = divided(recipe, stage, division, **options, trainable=["projector", "language_model"])
    out = tmp_path / "out"
    train_stage(stage, recipe, data=data, checkpoint=trained.parent(stage), output=out)
    parent = trained.parent(stage)
    assert parent is not None
    before = load_file(parent / "model.safetensors")
    after = load_file(out / "model.safetensors")
    assert torch.equal(before[PROJECTOR], after[PROJECTOR])
    moved = {name for name, value in before.items() if not torch.equal(value, after[name])}
    assert moved
    assert all("language_model" in name or "lm_head" in name for name in moved)


@pytest.mark.integration
@pytest.mark.usefixtures("quick_children")
@pytest.mark.parametrize("cached", [False, True], ids=["pixels", "cached features"])
@pytest.mark.parametrize("stage", [Stage.VQA_SFT, Stage.DPO])
def test_batches_without_a_picture_are_like_any_other(
    trained, tmp_path: Path, stage: Stage, cached: bool
) -> None:
    """One batch of eight, eight of one, or two processes: the same losses, norms and weights.

    In batches of one half of them, and in some steps one process alone, have no picture.
    """
    recipe, data = prepared(trained.recipe, stage, tmp_path, texts=8, pictures=8)
    histories, weights = [], []
    for processes, batch_size, accumulation in ((1, 8, 1), (1, 1, 8), (2, 1, 4), (2, 4, 1)):
        figures = changed(
            recipe,
            stage,
            batching="padded",
            batch_size=batch_size,
            accumulation=accumulation,
            max_steps=4,
            cached_features=cached,
        )
        content = figures.model_dump(mode="json")
        content["distributed"] = {"enabled": processes > 1, "processes": processes}
        out = tmp_path / f"out-{len(weights)}"
        train_stage(
            stage,
            Recipe.model_validate(content),
            data=data,
            checkpoint=trained.parent(stage),
            output=out,
        )
        histories.append([[line["loss"], line["grad_norm"]] for line in read_history(out)])
        weights.append(load_file(out / "model.safetensors"))
    for other in histories[1:]:
        for one, two in zip(histories[0], other, strict=True):
            assert two == pytest.approx(one, abs=2e-4, rel=2e-3)
    for other in weights[1:]:
        for name, value in weights[0].items():
            torch.testing.assert_close(other[name], value, atol=2e-4, rtol=1e-3, msg=name)
