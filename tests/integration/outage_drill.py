"""A pipeline on this machine whose MLflow server is killed, and started again, in given stages.

What should be in the store is known without the store: every stage writes its own history beside
its weights.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import yaml

from siqvl.checkpoint import read_card, read_history
from siqvl.recipe import Recipe, Stage
from siqvl.tracking.runs import client
from tests.loopback.tracking import MlflowServer

ROOT = Path(__file__).parents[2]
SECONDS = 900


@dataclass(frozen=True)
class Drill:
    """When the server goes and comes back: in the training of a stage; None is never."""

    killed_in: Stage | None = None
    back_in: Stage | None = None


@dataclass(frozen=True)
class Ran:
    """A pipeline that ended."""

    code: int
    seconds: float
    printed: str
    outputs: Path  # of this pipeline

    def training_seconds(self, stages: Iterable[Stage]) -> float:
        """What these stages took, by their own clocks."""
        cards = [read_card(self.outputs / "checkpoints" / stage.value) for stage in stages]
        return sum(card.metrics["train_runtime"] for card in cards)


def run(
    recipe: Recipe, folder: Path, server: MlflowServer, drill: Drill, programs: Path | None = None
) -> Ran:
    """Run `pyflyte run` with the server up at its start, and do to it what the drill says.

    Args:
        programs: the folder of `pyflyte`; by default that of this interpreter.
    """
    folder.mkdir(parents=True)
    content = recipe.model_dump(mode="json")
    content["output_dir"] = str(folder / "outputs")
    content["tracking"] |= {"uri": server.uri}
    (folder / "recipe.yaml").write_text(yaml.safe_dump(content))
    pyflyte = (programs or Path(sys.executable).parent) / "pyflyte"
    command = [str(pyflyte), "run", "workflows/full_pipeline.py", "full_pipeline"]
    begin = time.monotonic()
    with (folder / "printed.log").open("wb") as log:
        process = subprocess.Popen(
            [*command, "--recipe", str(folder / "recipe.yaml")],
            cwd=ROOT,
            env=os.environ | {"OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"},
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
        )
        try:
            if drill.killed_in and _reached(process, folder, drill.killed_in):
                server.kill()
            if drill.back_in and _reached(process, folder, drill.back_in):
                server.start()
            code = process.wait(SECONDS)
        finally:
            process.kill()
    seconds = time.monotonic() - begin
    (outputs,) = (folder / "outputs" / recipe.name).iterdir()
    return Ran(code, seconds, (folder / "printed.log").read_text(errors="replace"), outputs)


def _reached(process: subprocess.Popen[bytes], folder: Path, stage: Stage) -> bool:
    """Wait until a stage has kept its first state, so that it is in the midst of its steps."""
    end = time.monotonic() + SECONDS
    while time.monotonic() < end and process.poll() is None:
        states = f".{stage.value}.training-*/attempt-*/checkpoint-*"
        if list(folder.glob(f"outputs/*/*/checkpoints/{states}")):
            return True
        time.sleep(0.02)
    return False


def points(store_uri: str, experiment: str, stage: Stage) -> Counter:
    """How often each (name, step, value) of a stage's training is in the store."""
    store = client(store_uri)
    found = store.get_experiment_by_name(experiment)
    assert found is not None
    runs = store.search_runs([found.experiment_id], f"attributes.run_name = '{stage.value}'")
    counted: Counter = Counter()
    for run in runs:
        for name in run.data.metrics:
            if name.startswith("train/"):
                history = store.get_metric_history(run.info.run_id, name)
                counted.update((name, point.step, point.value) for point in history)
    return counted


def logged(ran: Ran, stage: Stage) -> Counter:
    """The same by the stage's own history."""
    counted: Counter = Counter()
    for entry in read_history(ran.outputs / "checkpoints" / stage.value):
        for name, value in entry.items():
            if name != "step":
                counted[(f"train/{name}", int(entry["step"]), float(value))] += 1
    return counted
