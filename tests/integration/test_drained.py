"""Pods that are drained: their stage ends as if nothing had happened, and their logs are ours."""

import random
from collections.abc import Callable
from dataclasses import dataclass

import pytest
from loopback.pods import ProcessPods
from loopback.records import Execution

from siqvl.recipe import Stage
from tests.integration.drained_stages import (
    LOST_PODS,
    Drainer,
    Outcome,
    Watch,
    logs,
    outcome,
    runs_of,
    with_steps,
)

pytestmark = pytest.mark.integration

LATER = [Stage.VQA_SFT, Stage.COT_SFT, Stage.DPO]
SIGNALS = 30  # of the drill


@dataclass
class Straight:
    """A stage that nothing disturbed: its command, its weights, and how long it trained."""

    command: list[str]
    address: str
    hash: str
    seconds: float


def result(execution: Execution) -> tuple[str, str]:
    literal = execution.outputs.literals["o0"]
    return literal.scalar.blob.uri, literal.hash


def weights(remote, address: str) -> bytes:
    return remote.cluster.store.get(f"{address.rstrip('/')}/model.safetensors")


@pytest.fixture(scope="module")
def straight(remote) -> Callable[[Stage], Straight]:
    """Stages on the cluster, each trained once, when it is first asked for."""
    recipe = ["--recipe", remote.write("drained.yaml", with_steps)]
    done: dict[Stage, Straight] = {}

    def trained(stage: Stage) -> Straight:
        if stage in done:
            return done[stage]
        prepared = remote.run("tasks/data_prep.py", "data_prep", "--stage", stage.value, *recipe)
        command = [f"tasks/{stage}.py", stage.value, "--data", result(prepared)[0], *recipe]
        stages = [Stage.PROJECTOR_ALIGNMENT, *LATER]
        if before := stages[: stages.index(stage)]:
            command += ["--checkpoint", trained(before[-1]).address]
        watch = Watch(stage)
        remote.cluster.on_pod(watch)
        execution = remote.run(*command)
        remote.cluster.on_pod(None)
        assert execution.succeeded
        assert watch.done.wait(10)
        done[stage] = Straight(command, *result(execution), watch.seconds)
        return done[stage]

    return trained


def drained(remote, stage: Stage, straight: Straight, chance: random.Random) -> Outcome:
    """Drain all attempts at a stage but the last, and compare what it comes to."""
    remote.cluster.on_pod(Drainer(stage, straight.seconds, chance))
    try:
        execution = remote.run("--overwrite-cache", *straight.command)
    finally:
        remote.cluster.on_pod(None)
    assert execution.succeeded, logs(execution)
    address, hash = result(execution)
    assert hash == straight.hash
    assert weights(remote, address) == weights(remote, straight.address)
    (node,) = [node for node in execution.nodes if node.task_name]
    *others, last = [str(attempt.number) for attempt in node.attempts]
    expected = dict.fromkeys(others, "KILLED") | {last: "FINISHED"}
    assert runs_of(remote.tracking, execution) == expected
    codes = {attempt.error.code for attempt in node.attempts if attempt.error}
    assert codes <= {"UnexpectedObjectDeletion"}
    found = outcome(execution)
    assert max(found.lost) <= 1, logs(execution)
    return found


def test_three_drains_lose_nothing(remote, straight) -> None:
    found = drained(remote, Stage.VQA_SFT, straight(Stage.VQA_SFT), random.Random(3))
    print(f"\n{found}", end="")
    assert found.signals == LOST_PODS
    assert found.in_steps
    assert found.beside == LOST_PODS  # each attempt began in the grace of the one before


@pytest.mark.drill
def test_thirty_drains_at_random_steps(remote, straight) -> None:
    chance, found, number = random.Random(23), Outcome(), 0
    while found.in_steps < SIGNALS:
        stage = LATER[number % len(LATER)]
        found += drained(remote, stage, straight(stage), chance)
        number += 1
        print(f"\n{found.signals} SIGTERMs in {number} trainings", end="", flush=True)
    print(
        f", {found.in_steps} at a step, {found.signals - found.in_steps} before the first or after "
        f"the last; steps lost: {sum(found.lost)} in all, {max(found.lost)} at most; "
        f"{found.beside} next attempts began beside the old one; a pod ended "
        f"{sum(found.seconds) / len(found.seconds):.1f} s after its signal, "
        f"{max(found.seconds):.1f} s at most",
        end="",
    )


def test_a_log_ends_with_what_has_happened(remote, straight) -> None:
    """As Kubernetes takes its end for the reason; pods that are started, and not forked."""
    stage = straight(Stage.PROJECTOR_ALIGNMENT)
    forked, remote.pods.processes = remote.pods.processes, ProcessPods()
    try:
        execution = remote.run("--overwrite-cache", *stage.command)
    finally:
        remote.pods.processes = forked
    (pod,) = execution.pods
    printed = pod.printed()
    assert "Unclosed" not in printed
    assert "Loading weights" not in printed
    assert "Writing model shards" not in printed
    assert "step 2 of 2" in printed.splitlines()[-1], printed[-2000:]
