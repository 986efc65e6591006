"""A task on a cluster ends when its time is over, and says so."""

import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from siqvl.errors import UserError
from siqvl.recipe import Recipe
from siqvl.tracking.runs import REASON, client
from siqvl.training.loop import stop_request
from siqvl.training.loop.stop_request import heeding
from tasks.contracts import ALONE, TINY
from tasks.time_limit import time_limited, time_was_over
from tasks.tracked import tracked

ROOT = Path(__file__).parents[2]


def limited(recipe: Recipe, minutes: int | None = 1) -> Recipe:
    content = recipe.model_dump(mode="json")
    content["compute"] = {"training": {"timeout_minutes": minutes}}
    return Recipe.model_validate(content)


@pytest.fixture
def pod(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    """A pod whose minutes are seconds, and short ones."""
    set_timer = signal.setitimer
    monkeypatch.setattr(
        "tasks.time_limit.signal.setitimer", lambda which, after: set_timer(which, after / 300)
    )
    for name in ("PROJECT", "DOMAIN", "ID"):
        monkeypatch.setenv(f"FLYTE_INTERNAL_EXECUTION_{name}", name.lower())
    monkeypatch.setenv("SIQVL_KIND", "training")
    return monkeypatch


@pytest.mark.usefixtures("pod")
def test_work_ends_when_its_time_is_over() -> None:
    begin = time.monotonic()
    with (
        pytest.raises(
            UserError, match=r"compute\.training\.timeout_minutes: 1; raise it"
        ) as caught,
        time_limited(limited(TINY)),
    ):
        time.sleep(30)
    assert time.monotonic() - begin < 20
    assert "\n" not in caught.value.message
    assert signal.getsignal(signal.SIGALRM) is signal.SIG_DFL


@pytest.mark.usefixtures("pod")
def test_its_run_has_failed_with_that_reason(recipe: Recipe) -> None:
    with pytest.raises(UserError), tracked(limited(recipe), "vqa_sft", ALONE) as log:
        time.sleep(30)
    run = client(log.uri).get_run(log.run_id)
    assert run.info.status == "FAILED"
    assert "compute.training.timeout_minutes: 1" in run.data.tags[REASON]


@pytest.mark.usefixtures("pod")
def test_a_training_finishes_its_step(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stop_request, "_request", None)
    steps: list[str] = []

    def train() -> None:
        with time_limited(limited(TINY)), heeding(25.0):
            while stop_request.requested() is None:
                steps.append("begun")
                time.sleep(0.05)
                steps.append("ended")

    with pytest.raises(UserError, match=r"training\.timeout_minutes: 1"):
        train()
    assert len(steps) > 2
    assert steps[-1] == "ended"


@pytest.mark.usefixtures("pod")
def test_work_that_is_done_in_time_is_left_alone() -> None:
    with time_limited(limited(TINY)):
        pass
    time.sleep(0.4)
    with time_limited(limited(TINY, None)):
        time.sleep(0.4)


def test_a_run_on_this_machine_has_all_the_time_it_takes(pod: pytest.MonkeyPatch) -> None:
    pod.delenv("FLYTE_INTERNAL_EXECUTION_ID")
    with time_limited(limited(TINY)):
        time.sleep(0.4)


def test_what_hangs_outside_of_python_is_killed() -> None:
    """A lock that the thread holds itself, waited for without a look at signals."""
    program = """
import ctypes, signal
from tasks import time_limit
from tasks.contracts import TINY
from siqvl.recipe import Recipe
time_limit.CLOSING = 0.2
set_timer, timer = signal.setitimer, time_limit.threading.Timer
time_limit.threading.Timer = lambda after, *rest: timer(after / 300, *rest)
content = TINY.model_dump(mode="json")
content["compute"] = {"training": {"timeout_minutes": 1}}
with time_limit.time_limited(Recipe.model_validate(content)):
    signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGALRM])
    ctypes.CDLL(None).sleep(60)
"""
    done = subprocess.run(
        [sys.executable, "-c", program],
        cwd=ROOT,
        env={"PATH": "", "FLYTE_INTERNAL_EXECUTION_ID": "abc", "SIQVL_KIND": "training"}
        | {"PYTHONPATH": str(ROOT), "HOME": "/nonexistent"},
        capture_output=True,
        text=True,
        timeout=55,
        check=False,
    )
    assert done.returncode == 124, done.stderr
    assert "the process hangs, and is killed" in done.stderr


def test_of_several_processes_one_says_why_they_ended() -> None:
    """torch elastic has a message of each, which may be a text or what it wrote to a file."""
    sentence = (
        "the time of this task is over, compute.training.timeout_minutes: 90; raise it and recover "
        "the execution, which goes on from the last state"
    )
    told = {"message": f"UserError: {sentence}", "extraInfo": {"timestamp": "1"}}
    assert time_was_over(["Signal 15 (SIGTERM) received", told]) == sentence
    assert time_was_over(["Signal 15 (SIGTERM) received"]) is None
