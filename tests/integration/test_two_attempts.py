"""Two attempts at one stage that are alive at once end like one that nothing disturbed."""

import os
import time
from pathlib import Path

import pytest
from transformers import TrainerCallback

from siqvl.checkpoint import verify_checkpoint
from siqvl.recipe import Recipe, Stage
from siqvl.training import stage_process
from siqvl.training.stage import train_stage
from tests.quick import children
from tests.training.changed_recipe import changed

pytestmark = pytest.mark.integration
STAGE = Stage.PROJECTOR_ALIGNMENT
STEPS = 6


class Appointments(TrainerCallback):
    """After some steps an attempt leaves a mark, and waits for that of the other."""

    def __init__(self, folder: Path, marks: dict[int, tuple[str, str]]) -> None:
        self.folder, self.marks = folder, marks

    def on_step_end(self, args, state, control, **kwargs) -> None:
        left, awaited = self.marks.get(state.global_step, ("", ""))
        if left:
            (self.folder / left).touch()
        while awaited and not (self.folder / awaited).exists():
            time.sleep(0.02)


def attempt(
    recipe: Recipe, data: Path, output: Path, name: str, marks: dict[int, tuple[str, str]]
) -> None:
    """The body of a child process; what it writes goes to a file."""
    with (output.parent / f"{name}.log").open("a") as log:
        os.dup2(log.fileno(), 1)
        os.dup2(log.fileno(), 2)
    build = stage_process._build_trainer

    def with_appointments(*arguments):
        trainer = build(*arguments)
        trainer.add_callback(Appointments(output.parent, marks))
        return trainer

    stage_process._build_trainer = with_appointments
    train_stage(STAGE, recipe, data=data, checkpoint=None, output=output)
    (output.parent / f"{name} has ended").touch()


#: What each of two attempts leaves after a step, and what it waits for.
ORDERS = {
    # the later one takes the state of the first, which goes on, ends, and clears up beside it
    "one after the other": (
        {3: ("begin", "the later one has begun")},
        {4: ("the later one has begun", "first has ended")},
    ),
    "at once": (
        {3: ("begin", "4 later"), STEPS: ("6 first", "6 later")},
        {4: ("4 later", ""), STEPS: ("6 later", "6 first")},
    ),
}


@pytest.mark.parametrize("order", ORDERS)
def test_two_attempts_at_once_end_like_one(trained, tmp_path: Path, order: str) -> None:
    options = {"max_steps": STEPS, "saving_steps": 1, "batch_size": 4, "cached_features": True}
    recipe = changed(trained.recipe, STAGE, **options)
    recipe = recipe.model_copy(update={"features_dir": str(tmp_path / "features")})
    both, straight = tmp_path / "both" / "out", tmp_path / "straight" / "out"
    both.parent.mkdir(), straight.parent.mkdir()
    data, (first, later) = trained.data(STAGE), ORDERS[order]

    def start(*arguments):
        process = children.Process(target=attempt, args=(recipe, data, *arguments))
        process.start()
        return process

    started = [start(both, "first", first)]
    while not (both.parent / "begin").exists():
        assert started[0].is_alive(), (both.parent / "first.log").read_text()
        time.sleep(0.02)
    started += [start(both, "later", later), start(straight, "straight", {})]
    for process in started:
        process.join()
    logs = {path.stem: path.read_text() for path in tmp_path.glob("*/*.log")}
    assert [process.exitcode for process in started] == [0, 0, 0], logs
    assert "continuing from" in logs["later"]
    weights = [(output / "model.safetensors").read_bytes() for output in (both, straight)]
    assert weights[0] == weights[1]
    verify_checkpoint(both, expected=STAGE)
    assert [path.name for path in both.parent.iterdir() if "out" in path.name] == ["out"]
