"""A checkpoint whose recipe has other keys than recipes of today: it is as good as any other."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from mlflow.pyfunc import PythonModelContext
from safetensors.torch import load_file

from siqvl.checkpoint import CARD, SCHEMA_VERSION, read_card
from siqvl.errors import UserError
from siqvl.evaluation.benchmarks.prepare_benchmarks import prepare_benchmarks
from siqvl.evaluation.evaluate import evaluate
from siqvl.recipe import Recipe, Stage
from siqvl.registry.versions import Registry
from siqvl.report.loss_page import loss_page
from siqvl.serving.pyfunc_model import VisionLanguageModel
from siqvl.serving.settings import ServingSettings
from siqvl.serving.signature import example
from siqvl.tracking.runs import client, start_run
from siqvl.training.stage import train_stage


def changed(checkpoint: Path, folder: Path) -> Path:
    """A copy, of a build that has a section more, and called two keys otherwise."""
    shutil.copytree(checkpoint, folder)
    card = json.loads((folder / CARD).read_text())
    recipe = card["recipe"]
    recipe["novelty"] = {"nobody": "knows"}
    recipe["model"]["image_tokens"] = recipe["model"].pop("max_image_tokens")
    recipe["serving"]["most_rows"] = recipe["serving"].pop("max_rows")
    recipe["serving"]["batch_size"] = 7
    (folder / CARD).write_text(json.dumps(card))
    return folder


def test_it_is_read_and_says_what_does_not_fit(trained, tmp_path: Path) -> None:
    checkpoint = changed(trained.checkpoint(Stage.DPO), tmp_path / "dpo")
    card, before = read_card(checkpoint), read_card(trained.checkpoint(Stage.DPO))
    assert card.model_copy(update={"recipe": before.recipe}) == before
    assert before.todays_recipe() == trained.recipe
    assert (card.recipe_name, card.control) == (trained.recipe.name, None)
    with pytest.raises(UserError) as caught:
        card.todays_recipe()
    for part in ("`tiny`", "dpo", "unknown key `novelty`", "`model.image_tokens`", "most_rows`"):
        assert part in caught.value.message
    assert "\n" not in caught.value.message
    assert "tiny" in loss_page(checkpoint)


def test_it_is_continued_from_and_evaluated(trained, tmp_path: Path) -> None:
    parent = changed(trained.checkpoint(Stage.COT_SFT), tmp_path / "cot_sft")
    output = tmp_path / "dpo"
    data = trained.data(Stage.DPO)
    train_stage(Stage.DPO, trained.recipe, data=data, checkpoint=parent, output=output)
    weights, expected = (
        load_file(one / "model.safetensors") for one in (output, trained.checkpoint(Stage.DPO))
    )
    assert all((weights[name] == value).all() for name, value in expected.items())
    prepare_benchmarks(trained.recipe, tmp_path / "benchmarks")
    checkpoints = (trained.checkpoint(Stage.DPO), changed(output, tmp_path / "changed"))
    plain, scored = (
        evaluate(
            trained.recipe,
            checkpoint=one,
            data=tmp_path / "benchmarks",
            out=tmp_path / f"report of {one.name}",
        )
        for one in checkpoints
    )
    assert scored.scores == plain.scores


def test_it_is_registered_and_served_with_what_it_says(
    trained, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    content = trained.recipe.model_dump(mode="json")
    content["tracking"]["uri"] = f"sqlite:///{tmp_path}/mlflow.db"
    log = start_run(Recipe.model_validate(content), "dpo")
    checkpoint = changed(trained.checkpoint(Stage.DPO), tmp_path / "dpo")
    assert Registry(log.uri, "served").register(log, checkpoint) == 1
    (output,) = client(log.uri).get_run(log.run_id).outputs.model_outputs
    place = client(log.uri).get_logged_model(output.model_id).artifact_location
    described = (tmp_path / place.removeprefix("file://") / "MLmodel").read_text()
    assert "batch_size: 7" in described
    assert "max_rows: 256" in described
    settings = ServingSettings.of(read_card(checkpoint).recipe).model_dump()
    model = VisionLanguageModel()
    model.load_context(PythonModelContext({"checkpoint": str(checkpoint)}, settings))
    assert len(model.predict(example(), params={"max_new_tokens": 2})) == 1


@pytest.mark.parametrize("recipe", [{}, {"serving": None, "data": [], "model": "x"}])
def test_what_a_recipe_does_not_say_is_as_today(recipe: dict[str, Any], trained) -> None:
    content = trained.recipe.model_dump(mode="json")
    content["model"] = {key: content["model"][key] for key in ("vision", "language")}
    defaults = Recipe.model_validate({**content, "serving": {}, "data": {}})
    assert ServingSettings.of(recipe) == ServingSettings.of(defaults)


def test_a_limit_that_is_none_is_named() -> None:
    with pytest.raises(UserError, match=r"serving: `max_rows`: .*greater than 0 \(got 0\)"):
        ServingSettings.of({"serving": {"max_rows": 0}})


def test_a_card_has_a_schema_version(trained, tmp_path: Path) -> None:
    checkpoint = shutil.copytree(trained.checkpoint(Stage.DPO), tmp_path / "dpo")
    card = json.loads((checkpoint / CARD).read_text())
    assert card.pop("schema_version") == SCHEMA_VERSION
    (checkpoint / CARD).write_text(json.dumps(card))
    assert read_card(checkpoint).schema_version == 1  # the first had none
    newer = {**card, "schema_version": SCHEMA_VERSION + 1, "a_new_key": 1}
    (checkpoint / CARD).write_text(json.dumps(newer))
    with pytest.raises(UserError) as caught:
        read_card(checkpoint)
    assert caught.value.message == (
        f"{checkpoint / CARD}: a newer SiQ-VL wrote this card (schema version "
        f"{SCHEMA_VERSION + 1}, this one reads {SCHEMA_VERSION}); update SiQ-VL"
    )
