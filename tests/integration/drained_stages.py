"""Stages on the loopback cluster whose pods are drained again and again, at random moments."""

from __future__ import annotations

import random
import re
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from loopback.pods import Pod
from loopback.records import Execution

from siqvl.recipe import Stage
from siqvl.tracking.runs import client

STEPS = 60
SECONDS = 120
#: Attempts that Flyte gives a task whose pods are lost, beside the first.
LOST_PODS = 3
STOPPED = re.compile(r"stopped by SIGTERM after step (\d+) of")
CONTINUED = re.compile(r"continuing from step (\d+), of")


def with_steps(content: dict[str, Any]) -> None:
    """Many small steps in stages 2 to 4, none of which is saved by its number."""
    for name, stage in content["stages"].items():
        stage |= {"batch_size": 4, "logging_steps": 7, "ema": None}
        if name != Stage.PROJECTOR_ALIGNMENT.value:
            stage |= {"max_steps": STEPS, "saving_steps": 10 * STEPS}


def has_begun(pod: Pod) -> bool:
    """Whether a stage is being trained in a pod, by the place of its states."""
    return any(pod.temporary.glob("siqvl/*/*/checkpoints/.*.training-*/attempt-*"))


@dataclass
class Drainer:
    """Drains each attempt of a stage but its last, at a random moment of its training.

    Args:
        seconds: that the training takes which nobody disturbs.
    """

    stage: Stage
    seconds: float
    chance: random.Random
    drained: list[str] = field(default_factory=list)

    def __call__(self, pod: Pod) -> None:
        if not pod.task.endswith(f".{self.stage}") or pod.attempt >= LOST_PODS:
            return
        end = time.monotonic() + SECONDS
        while not has_begun(pod):
            if pod.exit_code is not None or time.monotonic() > end:
                return
            time.sleep(0.005)
        time.sleep(self.chance.random() * self.seconds)
        if pod.exit_code is None:
            pod.drain()
            self.drained.append(pod.name)


@dataclass
class Watch:
    """How long a stage trains in its pod."""

    stage: Stage
    seconds: float = 0.0
    done: threading.Event = field(default_factory=threading.Event)

    def __call__(self, pod: Pod) -> None:
        if not pod.task.endswith(f".{self.stage}"):
            return
        while not has_begun(pod) and pod.exit_code is None:
            time.sleep(0.005)
        begin = time.monotonic()
        while has_begun(pod) and pod.exit_code is None:
            time.sleep(0.005)
        self.seconds = time.monotonic() - begin
        self.done.set()


@dataclass
class Outcome:
    """What became of an execution in which pods were drained."""

    signals: int = 0
    in_steps: int = 0  # those that came while steps were made
    lost: list[int] = field(default_factory=list)  # steps, of each
    beside: int = 0  # attempts that began while the one before had not ended
    seconds: list[float] = field(default_factory=list)  # from the signal to the end of the pod

    def __add__(self, other: Outcome) -> Outcome:
        parts = [getattr(self, name) + getattr(other, name) for name in vars(self)]
        return Outcome(*parts)


def outcome(execution: Execution) -> Outcome:
    """Compare what each attempt did with where the next one began, by their logs."""
    (node,) = [node for node in execution.nodes if node.task_name]
    pods, found = node.pods, Outcome()
    reached = 0  # steps that were done when an attempt ended
    for pod, following in zip(pods, [*pods[1:], None], strict=True):
        log = pod.printed()
        began = int(match[1]) if (match := CONTINUED.search(log)) else 0
        found.lost.append(max(0, reached - began))
        stopped = STOPPED.search(log)
        reached = int(stopped[1]) if stopped else max(reached, began)
        if pod.deleted:
            found.signals += 1
            found.in_steps += stopped is not None
            assert pod.told is not None
            found.seconds.append(pod.started + pod.seconds - pod.told)
            if following is not None:
                found.beside += following.started < pod.started + pod.seconds
    return found


def runs_of(tracking: str, execution: Execution) -> dict[str, str]:
    """Status of each attempt's run in MLflow."""
    store = client(tracking)
    (experiment,) = [one for one in store.search_experiments() if one.name == "remote"]
    return {
        run.data.tags["flyte.attempt"]: run.info.status
        for run in store.search_runs([experiment.experiment_id])
        if run.data.tags.get("flyte.execution", "").endswith(f"/{execution.name}")
    }


def logs(execution: Execution, folder: Path | None = None) -> str:
    """What the pods of an execution have printed."""
    return "\n--- ".join(pod.printed()[-4000:] for pod in execution.pods)
