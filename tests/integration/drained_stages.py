"""Stages on the loopback cluster whose pods are drained again and again, at random moments."""

from __future__ import annotations

import contextlib
import random
import re
import time
from dataclasses import dataclass, field
from typing import Any

from loopback.pods import Pod
from loopback.records import Execution

from siqvl.recipe import Stage
from siqvl.tracking.runs import client

STEPS = 110
MOST_DRAINS = 10  # of a training
SECONDS = 300
STOPPED = re.compile(r"stopped by SIGTERM after step (\d+) of")
CONTINUED = re.compile(r"continuing from step (\d+), of")
REACHED = re.compile(r"step (\d+) of")


def with_steps(content: dict[str, Any]) -> None:
    """Many small steps in stages 2 to 4, none of which is saved by its number, each on the page."""
    content["tracking"] |= {"page_every": 1, "samples": 0}
    content["compute"]["training"]["retries"] = MOST_DRAINS
    for name, stage in content["stages"].items():
        stage |= {"batch_size": 2, "logging_steps": 1}
        if name != Stage.PROJECTOR_ALIGNMENT.value:
            stage |= {"max_steps": STEPS, "saving_steps": 10 * STEPS}


def reached(pod: Pod, stage: Stage) -> int:
    """The step that the page of a training shows, 0 before the first."""
    for page in pod.temporary.glob(f"siqvl/*/*/training/{stage}.html"):
        with contextlib.suppress(OSError):
            if found := REACHED.search(page.read_text(errors="replace")):
                return int(found[1])
    return 0


@dataclass
class Drainer:
    """Drains the first attempts at a stage, each at a random step of its own.

    Args:
        steps: the step of each attempt, in their order.
    """

    stage: Stage
    steps: list[int]

    @classmethod
    def at_random(cls, stage: Stage, count: int, chance: random.Random) -> Drainer:
        """One in each of `count` parts of the training."""
        part = STEPS // (count + 1)
        return cls(stage, [part * number + chance.randrange(1, part) for number in range(count)])

    def __call__(self, pod: Pod) -> None:
        if not pod.task.endswith(f".{self.stage}") or pod.attempt >= len(self.steps):
            return
        end = time.monotonic() + SECONDS
        while reached(pod, self.stage) < self.steps[pod.attempt]:
            if pod.exit_code is not None or time.monotonic() > end:
                return
            time.sleep(0.005)
        if pod.exit_code is None:
            pod.drain()


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


def logs(execution: Execution) -> str:
    """What the pods of an execution have printed."""
    return "\n--- ".join(pod.printed()[-4000:] for pod in execution.pods)
