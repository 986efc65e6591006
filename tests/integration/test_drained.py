"""Pods that are drained: their stage ends as if nothing had happened, and their logs are ours."""

import random
import time
from collections.abc import Callable
from dataclasses import dataclass

import pytest
from loopback.attempts import Rules
from loopback.pods import ProcessPods
from loopback.records import Execution

from siqvl.recipe import Stage
from tests.integration.drained_stages import (
    MOST_DRAINS,
    Drainer,
    Outcome,
    logs,
    outcome,
    runs_of,
    with_steps,
)

pytestmark = pytest.mark.integration

LATER = [Stage.VQA_SFT, Stage.COT_SFT, Stage.DPO]
SIGNALS = MOST_DRAINS * len(LATER)  # of the drill: 30


@dataclass
class Straight:
    """A stage that nothing disturbed: its command and its checkpoint."""

    command: list[str]
    address: str
    hash: str


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
        execution = remote.run(*command)
        assert execution.succeeded
        done[stage] = Straight(command, *result(execution))
        return done[stage]

    return trained


def drained(remote, straight: Straight, drainer: Drainer) -> Outcome:
    """Drain the first attempts at a stage, and compare what it comes to."""
    remote.cluster.on_pod(drainer)
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
    drainer = Drainer.at_random(Stage.VQA_SFT, 3, random.Random(3))
    found = drained(remote, straight(Stage.VQA_SFT), drainer)
    assert found.signals == found.in_steps == 3
    assert found.beside == 3  # each attempt began in the grace of the one before


@pytest.mark.drill
def test_thirty_drains_at_random_steps(remote, straight, monkeypatch) -> None:
    """On a cluster that tries a lost pod again as often as a long training on spot nodes needs."""
    monkeypatch.setattr(remote.cluster.tasks, "rules", Rules(system_retries=SIGNALS))
    chance, found = random.Random(23), Outcome()
    for stage in LATER:
        undisturbed = straight(stage)
        begin = time.monotonic()
        found += drained(
            remote, undisturbed, Drainer.at_random(stage, SIGNALS // len(LATER), chance)
        )
        seconds = time.monotonic() - begin
        print(f"\n{stage}: {found.signals} SIGTERMs, {seconds:.0f} s", end="", flush=True)
    assert found.signals == SIGNALS
    print(
        f"\n{found.in_steps} of {found.signals} SIGTERMs came at a step; steps lost: "
        f"{sum(found.lost)} in all, {max(found.lost)} at most; {found.beside} next attempts began "
        f"beside the old one; a pod ended {sum(found.seconds) / len(found.seconds):.1f} s after "
        f"its signal, {max(found.seconds):.1f} s at most",
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
