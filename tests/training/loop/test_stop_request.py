"""Who asks a training to stop is heeded after the step that is under way, or not at all."""

import queue
import signal
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file
from transformers import TrainerCallback

from siqvl.checkpoint import read_history
from siqvl.recipe import Recipe, Stage
from siqvl.training.loop import stop_request
from siqvl.training.loop.stop_request import (
    Standing,
    Stopped,
    ask,
    heeding,
    listening,
    requested,
    standing,
)
from siqvl.training.places import all_states
from siqvl.training.resuming import all_state_folders
from siqvl.training.stage import train_stage
from siqvl.training.states import state_step
from tests.training.changed_recipe import changed
from tests.training.stopping import called

STAGES = [Stage.PROJECTOR_ALIGNMENT, Stage.VQA_SFT, Stage.COT_SFT, Stage.DPO]


@pytest.fixture(autouse=True)
def nothing_asked(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(stop_request, "_request", None)
    yield
    stop_request._request = None


def test_nothing_is_asked_where_nothing_heeds() -> None:
    assert ask(signal.SIGTERM, pytest.fail) is None
    with heeding(None):
        pass
    assert ask(signal.SIGTERM, pytest.fail) is None
    assert requested() is None


def test_a_request_that_came_after_the_last_look_stops_all_the_same() -> None:
    heard: queue.SimpleQueue[str] = queue.SimpleQueue()
    with listening(lambda: heard.put("asked")), pytest.raises(Stopped), heeding(None):  # noqa: PT012
        request = ask(signal.SIGTERM, pytest.fail)
        assert requested() is request
        assert request is not None
        assert request.left == float("inf")
        assert heard.get(timeout=5) == "asked"


def test_what_takes_longer_than_the_grace_is_given_up() -> None:
    ended = threading.Event()
    with pytest.raises(Stopped), heeding(stop_request.RESERVE + 0.2):  # noqa: PT012
        begin = time.monotonic()
        request = ask(signal.SIGTERM, ended.set)
        assert request is not None
        assert request.left <= 0.2
        assert ended.wait(5)
        assert time.monotonic() - begin >= 0.2


def test_a_thread_less_once_nobody_asks() -> None:
    before = set(threading.enumerate())
    for _ in range(3):
        with heeding(5.0):
            pass
    end = time.monotonic() + 5
    while [one for one in set(threading.enumerate()) - before if one.name == "stop-request"]:
        assert time.monotonic() < end
        time.sleep(0.01)


@pytest.mark.parametrize(
    ("step", "kept", "words"),
    [
        (0, 0, "no step was done"),
        (57, 57, "the state of step 57 is kept, and nothing is lost"),
        (0, 40, "the state of step 40 is kept, and nothing is lost"),
        (57, 56, "the state of step 56 stands, and 1 step is lost"),
        (57, 40, "the state of step 40 stands, and 17 steps are lost"),
        (57, 0, "there is no state, and 57 steps are lost"),
    ],
)
def test_what_an_end_costs_is_said(step: int, kept: int, words: str) -> None:
    assert str(Standing(step=step, kept=kept)) == words


class AskAt(TrainerCallback):
    """A signal comes while a step is under way."""

    def __init__(self, step: int) -> None:
        self.step = step

    def on_step_begin(self, args, state, control, **options) -> None:
        if state.global_step == self.step - 1:
            assert ask(signal.SIGTERM, lambda: None) is not None


def stopped_at(step: int, stage: Stage, recipe: Recipe, **inputs: Any) -> None:
    """Train a stage that is asked to stop in a step, and does."""
    with called(AskAt(step)), pytest.raises(Stopped):
        train_stage(stage, recipe, **inputs)


def long(recipe: Recipe, stage: Stage) -> Recipe:
    """No state is due before the end, and the steps between two lines of the history are kept."""
    figures = {"max_steps": 6, "saving_steps": 1000, "logging_steps": 4, "batch_size": 4}
    return changed(recipe, stage, **figures)


def saved(output: Path) -> list[int]:
    found = [state for folder in all_state_folders(output) for state in all_states(folder)]
    return [state_step(state) for state in found]


@pytest.mark.parametrize("stage", STAGES)
def test_a_stage_that_is_asked_loses_nothing(trained, tmp_path: Path, caplog, stage: Stage) -> None:
    recipe = long(trained.recipe, stage)
    inputs = {"data": trained.data(stage), "checkpoint": trained.parent(stage)}
    straight, stopped = tmp_path / "straight", tmp_path / "stopped"
    train_stage(stage, recipe, **inputs, output=straight)
    for step in (3, 6):
        stopped_at(step, stage, recipe, **inputs, output=stopped)
        assert saved(stopped)[0] == step
        assert f"stopped by SIGTERM after step {step} of 6" in caplog.text
        assert (standing.step, standing.kept) == (step, step)
        stop_request._request = None
    train_stage(stage, recipe, **inputs, output=stopped)
    assert "continuing from step 6, of " in caplog.text
    weights = [load_file(output / "model.safetensors") for output in (straight, stopped)]
    assert all((weights[0][name] == weights[1][name]).all() for name in weights[0])
    histories = [
        [(entry["step"], entry["loss"]) for entry in read_history(output)]
        for output in (straight, stopped)
    ]
    assert histories[0] == histories[1]
    assert all_state_folders(stopped) == []


def test_a_state_that_takes_too_long_is_not_begun(
    trained, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog
) -> None:
    """As the last one took: the one before stands, and what that costs is said."""
    stage = Stage.PROJECTOR_ALIGNMENT
    recipe = changed(long(trained.recipe, stage), stage, saving_steps=2)
    output = tmp_path / "out"
    save = Standing.saved
    monkeypatch.setattr(Standing, "saved", lambda self, step, seconds: save(self, step, 90.0))
    inputs = {"data": trained.data(stage), "checkpoint": None, "output": output}
    stopped_at(5, stage, recipe, **inputs, grace=60.0)
    assert saved(output) == [4, 2]
    assert "a state takes about 90 s to be written and kept, and 57 s are left" in caplog.text
    assert str(standing) == "the state of step 4 stands, and 1 step is lost"
