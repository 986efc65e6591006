"""Processes that signals stop: their runs end KILLED, one line says so, and they die of it."""

import os
import random
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import yaml

from siqvl.recipe import Recipe, Stage
from siqvl.tracking.heartbeat import LOST_AFTER, end_lost
from siqvl.tracking.outbox import NAME, Outbox
from siqvl.tracking.runs import client
from siqvl.tracking.store import HEARTBEAT
from tests.loopback.poor_server import PoorServer, poor_server

ROOT = Path(__file__).parents[2]
SECONDS = 300
GOES_ON = "; the same command goes on where it was"


class Program:
    """A command of this checkout in a folder of its own."""

    def __init__(self, folder: Path, recipe: Recipe, *command: str | Path) -> None:
        self.folder = folder
        (folder / "recipe.yaml").write_text(yaml.safe_dump(recipe.model_dump(mode="json")))
        self._err = folder / "stderr"
        with self._err.open("wb") as err:
            self.process = subprocess.Popen(
                [*command],
                cwd=folder,
                env=os.environ | {"PYTHONPATH": str(ROOT)},
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=err,
            )

    @property
    def said(self) -> str:
        return self._err.read_text(errors="replace")

    def until(self, is_so: Callable[[], object]) -> None:
        end = time.monotonic() + SECONDS
        while not is_so():
            assert self.process.poll() is None, self.said[-3000:]
            assert time.monotonic() < end
            time.sleep(0.02)

    def ended(self) -> int:
        return self.process.wait(SECONDS)


@contextmanager
def started(*arguments) -> Iterator[Program]:
    program = Program(*arguments)
    try:
        yield program
    finally:
        program.process.kill()  # and with it goes what it stands for
        program.process.wait()


@contextmanager
def waiting(folder: Path, recipe: Recipe, programs: Path, where: str) -> Iterator[tuple]:
    """A program that waits, and its process id."""
    ready = folder / "waits"
    module = ("-m", "tests.tasks.waiting_program", folder / "recipe.yaml", where, ready)
    with started(folder, recipe, programs / "python", *module) as program:
        program.until(ready.exists)
        yield program, int(ready.read_text())


def ends(recipe: Recipe) -> dict[str, str]:
    store = client(recipe.tracking.uri or "")
    experiment = store.get_experiment_by_name(recipe.tracking.experiment)
    runs = store.search_runs([experiment.experiment_id])
    assert all(run.info.end_time for run in runs if run.info.status != "RUNNING")
    return {run.info.run_name: run.info.status for run in runs}


@pytest.fixture
def recipe(tmp_path: Path, small_recipe: Callable[..., Recipe]) -> Recipe:
    tracking: dict = {"experiment": "test", "uri": f"sqlite:///{tmp_path}/mlflow.db"}
    client(tracking["uri"]).search_experiments()  # makes it, which takes a program seconds
    return small_recipe(tmp_path, tracking=tracking | {"patience_seconds": 2.0})


@pytest.mark.parametrize(
    ("number", "where", "stopped"),
    [
        (signal.SIGINT, "stage", "`stage`, `pipeline`"),
        (signal.SIGTERM, "stage", "`stage`, `pipeline`"),
        (signal.SIGHUP, "stage", "`stage`, `pipeline`"),
        (signal.SIGTERM, "between", "`pipeline`"),
    ],
)
def test_a_stopped_process_says_so_and_ends_its_runs(
    recipe: Recipe, tmp_path: Path, forked: Path, number: signal.Signals, where: str, stopped: str
) -> None:
    with waiting(tmp_path, recipe, forked, where) as (program, pid):
        os.kill(pid, number)
        if number == signal.SIGHUP:  # a shell whose terminal closes sends it too
            os.kill(pid, number)
        assert program.ended() == -number
    assert program.said == f"\n{number.name} stops {stopped}{GOES_ON}\n"
    assert set(ends(recipe).values()) == {"KILLED"}


def in_pod(monkeypatch: pytest.MonkeyPatch) -> None:
    for part in ("PROJECT", "DOMAIN", "ID"):
        monkeypatch.setenv(f"FLYTE_INTERNAL_EXECUTION_{part}", part.lower())


def test_a_pod_ends_as_one_whose_node_was_lost(
    recipe: Recipe, tmp_path: Path, forked: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Flyte 1.16.8 takes 137 for that, and 143 or 241 for a mistake of the task (seen)."""
    in_pod(monkeypatch)
    with waiting(tmp_path, recipe, forked, "stage") as (program, pid):
        os.kill(pid, signal.SIGTERM)
        assert program.ended() == 137
    assert "SIGTERM stops `stage`, `pipeline`; the next attempt takes its place\n" in program.said
    assert set(ends(recipe).values()) == {"KILLED"}


def test_a_step_that_is_longer_than_the_grace_is_given_up(
    recipe: Recipe, tmp_path: Path, forked: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    in_pod(monkeypatch)
    with waiting(tmp_path, recipe, forked, "step") as (program, pid):
        os.kill(pid, signal.SIGTERM)
        assert program.ended() == 137
    assert "SIGTERM stops `stage`, `pipeline` after the step that is under way; " in program.said
    last = program.said.splitlines()[-1]
    assert last.endswith("state: the state of step 40 stands, and 17 steps are lost")
    assert set(ends(recipe).values()) == {"KILLED"}


def test_a_second_signal_ends_a_step_at_once(recipe: Recipe, tmp_path: Path, forked: Path) -> None:
    with waiting(tmp_path, recipe, forked, "step") as (program, pid):
        os.kill(pid, signal.SIGINT)
        program.until(lambda: GOES_ON in program.said)
        os.kill(pid, signal.SIGINT)
        assert program.ended() == -signal.SIGINT


def test_a_program_that_nohup_started_goes_on(recipe: Recipe, tmp_path: Path, forked: Path) -> None:
    with waiting(tmp_path, recipe, forked, "nohup") as (program, pid):
        os.kill(pid, signal.SIGHUP)
        os.kill(pid, signal.SIGTERM)
        assert program.ended() == -signal.SIGTERM
    assert program.said.count(GOES_ON) == 1
    assert "SIGTERM stops" in program.said


def of_server(recipe: Recipe, server: PoorServer, patience: float) -> Recipe:
    content = recipe.model_dump()
    content["tracking"] |= {"uri": server.uri, "patience_seconds": patience}
    return Recipe.model_validate(content)


def test_a_second_signal_ends_it_at_once(recipe: Recipe, tmp_path: Path, forked: Path) -> None:
    with poor_server() as server:
        patient = of_server(recipe, server, 10.0 * SECONDS)
        with waiting(tmp_path, patient, forked, "stage") as (program, pid):
            server.trouble = lambda path, body: 0  # it never answers
            os.kill(pid, signal.SIGTERM)
            program.until(lambda: GOES_ON in program.said)
            os.kill(pid, signal.SIGINT)
            assert program.ended() == -signal.SIGINT


def test_a_store_that_is_away_holds_no_end_up(recipe: Recipe, tmp_path: Path, forked: Path) -> None:
    with poor_server() as server:
        patience = 2.0
        with waiting(tmp_path, of_server(recipe, server, patience), forked, "stage") as started:
            program, pid = started
            server.trouble = lambda path, body: 0
            begin = time.monotonic()
            os.kill(pid, signal.SIGTERM)
            assert program.ended() == -signal.SIGTERM
            # a second more for every further wait: of the other run, at exit, for the thread
            assert time.monotonic() - begin < patience + 10.0
    outbox = Outbox(tmp_path / "outputs" / "spool" / NAME)
    entries = [entry for stream in outbox.streams() for entry in outbox.waiting(stream)]
    assert [one.content["status"] for one in entries if one.kind == "end"] == ["KILLED", "KILLED"]
    outbox.close()


def processes_of(session: int) -> list[str]:
    """What runs in a session, by its command lines."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            state, _, _, of = (process / "stat").read_text().rpartition(")")[2].split()[:4]
            if int(of) == session and state != "Z":
                found.append((process / "cmdline").read_text().replace("\0", " "))
        except (OSError, ValueError):  # it has just ended
            continue
    return found


@contextmanager
def training(
    folder: Path, recipe: Recipe, programs: Path, *command: str | Path
) -> Iterator[tuple[Program, int]]:
    """`pyflyte run` of a stage that has just written a state, and its process, which leads them."""
    before = set(folder.glob("outputs/spool/*.lock"))
    states = f"outputs/{recipe.name}/single/checkpoints/.*.training-*/attempt-*/checkpoint-*"
    known = set(folder.glob(states))
    end = ("--recipe", folder / "recipe.yaml")
    with started(folder, recipe, programs / "pyflyte", "run", *command, *end) as program:
        program.until(lambda: set(folder.glob(states)) - known)
        lock, *_ = set(folder.glob("outputs/spool/*.lock")) - before
        yield program, os.getsid(int(lock.name.split("-")[-2]))


def long(recipe: Recipe, processes: int) -> Recipe:
    content = recipe.model_dump(mode="json")
    content["distributed"] |= {"enabled": processes > 1, "processes": processes}
    for stage in content["stages"].values():
        stage |= {"max_steps": 5000, "saving_steps": 5}
    return Recipe.model_validate(content)


def stopped(program: Program, pid: int, number: signal.Signals) -> None:
    """Stop it as Ctrl-C does, all of its processes, or that one; it dies of it, and all others."""
    (os.killpg if number == signal.SIGINT else os.kill)(pid, number)
    assert program.ended() == -number
    end = time.monotonic() + 60
    while processes_of(pid):  # workers look for their parent every few seconds
        assert time.monotonic() < end, processes_of(pid)
        time.sleep(0.1)
    assert "Traceback" not in program.said
    told = number != signal.SIGKILL
    assert program.said.count(GOES_ON) == told
    assert program.said.count(" after step ") == told, program.said


@pytest.mark.integration
def test_a_training_is_stopped_again_and_again(
    trained, recipe: Recipe, tmp_path: Path, forked: Path
) -> None:
    """In one process and in two; the one that could not say so is told by its heartbeat."""
    stage = Stage.PROJECTOR_ALIGNMENT.value
    data = ("--data", trained.data(Stage.PROJECTOR_ALIGNMENT))
    command = (ROOT / "tasks" / f"{stage}.py", stage, *data)
    draw = random.Random(0)
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGKILL):
        one = long(recipe, processes=1 + (number == signal.SIGTERM))
        with training(tmp_path, one, forked, *command) as (program, pid):
            time.sleep(draw.random())
            stopped(program, pid, number)
    store = client(recipe.tracking.uri or "")
    experiment = store.get_experiment_by_name("test")
    killed, *others = store.search_runs([experiment.experiment_id])
    assert [run.info.status for run in (killed, *others)] == ["RUNNING", "KILLED", "KILLED"]
    store.set_tag(killed.info.run_id, HEARTBEAT, f"{time.time() - LOST_AFTER - 1:.0f} 1")
    end_lost(recipe.tracking.uri or "", "test")
    assert set(ends(recipe).values()) == {"KILLED"}


@pytest.mark.integration
def test_processes_of_the_elastic_plugin_are_stopped(
    trained, recipe: Recipe, tmp_path: Path, forked: Path
) -> None:
    stage = Stage.PROJECTOR_ALIGNMENT
    task = (ROOT / "tasks" / "elastic_training.py", "elastic_training", "--stage", stage.value)
    data = ("--data", trained.data(stage))
    with training(tmp_path, long(recipe, processes=2), forked, *task, *data) as (program, pid):
        stopped(program, pid, signal.SIGINT)
    assert ends(recipe) == {stage.value: "KILLED"}
