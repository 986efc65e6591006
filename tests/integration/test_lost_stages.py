"""Stages that lose their pods for good: how often they are tried, and what MLflow says then."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from loopback.pods import Pod
from loopback.records import Execution

from siqvl.tracking.runs import client

pytestmark = pytest.mark.integration

PIPELINE = ("workflows/full_pipeline.py", "full_pipeline")
SECONDS = 120
Lost = Callable[..., Execution]


def has_begun(pod: Pod) -> bool:
    """Whether its stage is at work, so that it has a run."""
    place = pod.temporary
    return any(place.glob("siqvl/*/*/checkpoints")) or any(place.glob("siqvl/*/sweep-*/*"))


@pytest.fixture
def lost(remote) -> Iterator[Lost]:
    """A command on the cluster in which every pod of a task ends in one way."""

    def run(how: str, task: str, *arguments: str, training: dict[str, Any]) -> Execution:
        def change(content: dict[str, Any]) -> None:
            content["compute"]["training"] |= training
            content["stages"]["projector_alignment"]["max_steps"] = 5000

        def end(pod: Pod) -> None:
            if task not in pod.task:
                return
            until = time.monotonic() + SECONDS
            while pod.exit_code is None and time.monotonic() < until:
                if has_begun(pod):
                    getattr(pod, how)()
                    return
                time.sleep(0.02)

        remote.cluster.on_pod(end)
        recipe = remote.write("lost.yaml", change)
        return remote.run(*arguments, "--recipe", recipe, code=None)

    yield run
    remote.cluster.on_pod(None)


def runs(remote, execution: Execution) -> list:
    store = client(remote.tracking)
    found = store.search_runs(
        [one.experiment_id for one in store.search_experiments()],
        f"tags.`flyte.execution` LIKE '%/{execution.name}'",
    )
    assert "RUNNING" not in {run.info.status for run in found}
    return found


def of(found: list, name: str, attempt: int = 0):
    """The run of an attempt, by its name; of a pipeline or a sweep by its kind."""
    kinds = [run for run in found if run.data.tags.get("siqvl.kind") == name]
    (run,) = kinds or [
        run
        for run in found
        if (run.info.run_name, run.data.tags["flyte.attempt"]) == (name, str(attempt))
    ]
    return run


def test_a_stage_that_runs_out_of_memory_says_so(remote, lost: Lost) -> None:
    task = "projector_alignment"
    failed = lost("run_out_of_memory", task, *PIPELINE, training={"retries": 2, "memory": "3Gi"})
    (node,) = (node for node in failed.of_task(task) if node.attempts)
    assert len(node.attempts) == 3
    found = runs(remote, failed)
    why = (
        "projector_alignment ran out of its 3Gi of memory, in all 3 attempts: raise "
        "compute.training.memory or lower batch_size"
    )
    for run in (of(found, "pipeline"), of(found, task, 2)):
        assert (run.info.status, run.data.tags["siqvl.error"]) == ("FAILED", why)
    for attempt in (0, 1):
        run = of(found, task, attempt)
        assert run.info.status == "KILLED"
        assert run.data.tags["siqvl.error"].startswith(f"the pod of attempt {attempt + 1} was lost")


def test_no_retries_are_none(remote, lost: Lost) -> None:
    task = "projector_alignment"
    failed = lost("run_out_of_memory", task, *PIPELINE, training={"retries": 0})
    (node,) = (node for node in failed.of_task(task) if node.attempts)
    assert len(node.attempts) == 1
    assert "in its only attempt" in of(runs(remote, failed), task).data.tags["siqvl.error"]


def test_the_fourth_pod_that_is_lost_ends_it_and_knows_that_it_may(remote, lost: Lost) -> None:
    task = "projector_alignment"
    failed = lost("kill", task, *PIPELINE, training={"retries": 6, "interruptible": True})
    (node,) = (node for node in failed.of_task(task) if node.attempts)
    assert [attempt.interruptible for attempt in node.attempts] == [True, True, True, False]
    said = ["may be its last chance" in pod.printed() for pod in node.pods]
    assert said == [False, False, False, True]
    reason = of(runs(remote, failed), "pipeline").data.tags["siqvl.error"]
    assert reason.startswith("projector_alignment was killed from outside (exit code ")
    assert "in all 4 attempts: set compute.training.interruptible to false" in reason


@pytest.fixture(scope="module")
def prepared(remote) -> dict[str, str]:
    """What a sweep needs: option -> address of what was prepared."""
    stages = {"--data": "projector_alignment", "--benchmarks": "evaluation"}
    made = {
        option: remote.run("tasks/data_prep.py", "data_prep", "--stage", stage, *remote.small)
        for option, stage in stages.items()
    }
    return {name: run.outputs.literals["o0"].scalar.blob.uri for name, run in made.items()}


def test_a_point_of_a_sweep_that_is_lost_says_so(remote, lost: Lost, prepared) -> None:
    words = [word for pair in prepared.items() for word in pair]
    grid = json.dumps({"values": {"learning_rate": [0.0005]}})
    failed = lost(
        *("run_out_of_memory", "map_sweep_point"),
        *("workflows/sweep.py", "sweep", "--stage", "projector_alignment", *words, "--grid", grid),
        training={"retries": 1},
    )
    (node,) = (node for node in failed.nodes if node.is_array)
    assert [len(element.attempts) for element in node.elements] == [2]
    found = runs(remote, failed)
    name = "learning_rate=0.0005"
    why = of(found, name, 1).data.tags["siqvl.error"]
    assert why.startswith(f"{name} ran out of its ")
    assert "in both attempts" in why
    assert of(found, "sweep").data.tags["siqvl.error"] == why
    assert of(found, "sweep").info.status == "FAILED"
