"""The page of a stage in training: written every so many steps, with all that was logged so far."""

import logging
import re
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from PIL import Image

from siqvl.recipe import Recipe, Stage
from siqvl.tracking.sample_table import Answered
from siqvl.training.figures.live_page import LivePage
from siqvl.training.stage import train_stage
from tests.training.changed_recipe import changed
from tests.training.stopping import stopped_after


def logged(steps: int) -> list[dict[str, Any]]:
    return [
        {
            "step": step,
            "loss": 4.0 / step,
            "tokens_per_second": 1000.0 + step,
            "data_wait_share": 0.25,
            "peak_memory_gib": 1.5,
        }
        for step in range(1, steps + 1)
    ]


def state(steps: int, first: bool = True) -> Any:
    return SimpleNamespace(
        global_step=steps, max_steps=90, is_world_process_zero=first, log_history=logged(steps)
    )


def with_every(recipe: Recipe, every: int | None) -> Recipe:
    content = recipe.model_dump(mode="json")
    content["tracking"]["page_every"] = every
    return Recipe.model_validate(content)


@pytest.fixture
def recipe(small_recipe: Any, tmp_path: Path) -> Recipe:
    return with_every(small_recipe(tmp_path), 20)


def test_the_page_comes_with_the_first_log_and_then_every_so_many_steps(
    recipe: Recipe, tmp_path: Path
) -> None:
    page = LivePage(tmp_path / "training" / "vqa_sft.html", Stage.VQA_SFT, recipe)
    written = []
    for step in range(7, 90, 7):  # logs and pages need not fall together
        before = len(page.seconds)
        page.on_log(None, state(step), None)
        written += [step] * (len(page.seconds) - before)
    assert written == [7, 28, 49, 70]
    text = page.place.read_text()
    assert "step 70 of 90" in text
    assert [path.name for path in page.place.parent.iterdir()] == ["vqa_sft.html"]


def test_it_shows_loss_speed_waiting_memory_and_answers(recipe: Recipe, tmp_path: Path) -> None:
    page = LivePage(tmp_path / "page.html", Stage.VQA_SFT, recipe)
    picture = Image.new("RGB", (8, 8), "red")
    page.answered(10, [Answered("row 1", picture, "which <b>?", "red", "blue & red", 0)])
    page.answered(11, [Answered("row 2", None, "how many?", "two", "", 0)])
    page.write(state(30))
    text = page.place.read_text()
    assert text.count('class="raw"') == 4
    for said in ("1,030 tokens/s", "25 % of the time", "1.5 GiB", "after step 11", "(nothing)"):
        assert said in text
    assert "row 1" not in text
    picture = Image.new("RGB", (8, 8), "blue")  # that of a row stays as it was seen first
    page.answered(12, [Answered("row 1", picture, "which <b>?", "red", "blue & red", 0)])
    page.write(state(30))
    text = page.place.read_text()
    assert "which &lt;b&gt;?" in text
    assert "blue &amp; red" in text
    assert text.count('<img src="data:image/png;base64,') == 1
    assert not re.search(r"https?://|<script", text)


def test_other_processes_write_none_and_null_waits_for_the_end(
    recipe: Recipe, tmp_path: Path
) -> None:
    page = LivePage(tmp_path / "page.html", Stage.VQA_SFT, recipe)
    page.on_log(None, state(30, first=False), None)
    late = LivePage(tmp_path / "page.html", Stage.VQA_SFT, with_every(recipe, None))
    late.on_log(None, state(30), None)
    assert not page.place.exists()
    late.write(state(30))
    assert page.place.exists()


def test_a_place_that_cannot_be_written_is_said_once(
    recipe: Recipe, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "file").touch()
    page = LivePage(tmp_path / "file" / "page.html", Stage.VQA_SFT, recipe)
    with caplog.at_level(logging.WARNING):
        page.write(state(3))
        page.write(state(4))
    (said,) = [one.message for one in caplog.records if "cannot be written" in one.message]
    assert str(page.place) in said


def test_a_long_training_is_drawn_in_no_time(recipe: Recipe, tmp_path: Path) -> None:
    page = LivePage(tmp_path / "page.html", Stage.VQA_SFT, recipe)
    page.write(state(20_000))
    assert (
        page.seconds[0] < 2.0
    )  # a mean over 1,200 neighbours of each step is no longer summed anew
    assert page.place.stat().st_size < 200_000


def test_a_resumed_training_shows_what_was_before_the_kill_and_comes_to_the_same_weights(
    trained: Any, tmp_path: Path
) -> None:
    stage = Stage.PROJECTOR_ALIGNMENT
    figures = {"max_steps": 3, "logging_steps": 1, "saving_steps": 1}
    recipe = with_every(changed(trained.recipe, stage, **figures), 1)
    inputs = {"data": trained.data(stage), "checkpoint": None}
    train_stage(stage, recipe, **inputs, output=tmp_path / "without")

    page, out = tmp_path / "page.html", tmp_path / "with"
    with stopped_after(2), pytest.raises(RuntimeError, match="killed"):
        train_stage(stage, recipe, **inputs, output=out, page=page)
    assert "step 1 of 3" in page.read_text()
    page.unlink()
    train_stage(stage, recipe, **inputs, output=out, page=page)
    weights = [(tmp_path / one / "model.safetensors").read_bytes() for one in ("without", "with")]
    assert weights[0] == weights[1]
    text = page.read_text()
    assert "step 3 of 3" in text
    drawn = re.findall(r'class="raw" points="([^"]+)"', text)
    assert [len(points.split()) for points in drawn] == [3, 3, 3, 3]
