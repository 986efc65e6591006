"""A stage that loses its pod three times on the loopback cluster ends as if it had not."""

import time
from pathlib import Path

import pytest
from loopback.pods import Pod
from loopback.records import Execution

from siqvl.tracking.runs import client
from tasks.preemption import ARCHIVE

pytestmark = pytest.mark.integration

STEPS, SAVING = 60, 4
SECONDS = 120


def folder_of(pod: Pod) -> Path | None:
    """Where the pod's stage keeps states on its own disk, once it has begun."""
    found = list(pod.temporary.glob("siqvl/*/*/checkpoints"))
    return found[0] if found else None


def before_the_first_save(pod: Pod) -> bool:
    return folder_of(pod) is not None


def once_a_state_is_kept(pod: Pod) -> bool:
    return any(key.endswith(ARCHIVE) for key in pod.checkpoint_keys())


def within_a_save(pod: Pod) -> bool:
    """A state lies half written on disk; those before it have been kept."""
    folder = folder_of(pod)
    return folder is not None and any(
        folder.glob(".projector_alignment.training-*/*/.saving-*/*/*")
    )


class Killer:
    """Ends each attempt at its point, by SIGKILL, as a node that is taken away does."""

    def __init__(self, *points) -> None:
        self.points = points
        self.killed: list[str] = []

    def __call__(self, pod: Pod) -> None:
        if not pod.task.endswith("projector_alignment") or pod.attempt >= len(self.points):
            return
        point, end = self.points[pod.attempt], time.monotonic() + SECONDS
        while time.monotonic() < end and pod.exit_code is None:
            if point(pod):
                pod.kill()
                self.killed.append(point.__name__)
                return
            time.sleep(0.002)


@pytest.fixture(scope="module")
def stage(remote) -> list[str]:
    """The command of stage 1 alone, on data that was prepared on the cluster."""

    def change(content: dict) -> None:
        figures = content["stages"]["projector_alignment"]
        figures |= {"max_steps": STEPS, "saving_steps": SAVING, "batch_size": 8}
        figures["sources"][0]["max_samples"] = 64

    recipe = ["--recipe", remote.write("preempted.yaml", change)]
    prepared = remote.run(
        "tasks/data_prep.py", "data_prep", "--stage", "projector_alignment", *recipe
    )
    data = prepared.outputs.literals["o0"].scalar.blob.uri
    return ["tasks/projector_alignment.py", "projector_alignment", "--data", data, *recipe]


def weights(remote, execution: Execution) -> bytes:
    address = execution.outputs.literals["o0"].scalar.blob.uri
    return remote.cluster.store.get(f"{address.rstrip('/')}/model.safetensors")


def test_three_kills_change_nothing(remote, stage: list[str]) -> None:
    straight = remote.run(*stage)
    assert straight.succeeded
    killer = Killer(before_the_first_save, once_a_state_is_kept, within_a_save)
    remote.cluster.on_pod(killer)
    try:
        killed = remote.run("--overwrite-cache", *stage)
    finally:
        remote.cluster.on_pod(None)

    assert killed.succeeded
    assert killer.killed == ["before_the_first_save", "once_a_state_is_kept", "within_a_save"]
    (node,) = [node for node in killed.nodes if node.task_name]
    assert len(node.attempts) == 4
    logs = [pod.printed() for pod in node.pods]
    continued = ["continuing from" in log for log in logs]
    assert continued == [False, False, True, True]
    assert weights(remote, killed) == weights(remote, straight)
    hashes = {one.outputs.literals["o0"].hash for one in (straight, killed)}
    assert len(hashes) == 1


def test_no_attempt_is_left_running_in_mlflow(remote, stage: list[str]) -> None:
    store = client(remote.tracking)
    (experiment,) = [one for one in store.search_experiments() if one.name == "remote"]
    # the only stage 1 of all that lost pods
    (execution,) = [
        one
        for one in remote.cluster.executions
        if len(one.nodes[-1].attempts) == 4 and one.of_task("projector_alignment")
    ]
    runs = [
        run
        for run in store.search_runs([experiment.experiment_id])
        if run.data.tags.get("flyte.execution", "").endswith(f"/{execution.name}")
    ]
    states = {run.data.tags["flyte.attempt"]: run.info.status for run in runs}
    assert states == {"0": "KILLED", "1": "KILLED", "2": "KILLED", "3": "FINISHED"}
