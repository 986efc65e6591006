"""The loopback counts attempts as Flyte 1.16.8 was seen to, and says what it says."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path

import pytest
from flyteidl.core import literals_pb2, tasks_pb2, workflow_pb2
from loopback.array import _failed
from loopback.attempts import Rules, Tally
from loopback.container import container_of
from loopback.outcome import deleted_object, log_tail, outcome
from loopback.pods import Pod
from loopback.policy import policy_of
from loopback.records import SYSTEM, USER, Aborted, Attempt, Element, Failure
from loopback.single_task import workflow_of
from loopback.tasks import _arguments, in_go

LOST = Failure("Interrupted", "lost", kind=SYSTEM, recoverable=True)
OUT_OF_MEMORY = Failure("OOMKilled", "full", kind=USER, recoverable=True)


def tally(
    retries: int = 0, *, interruptible: bool = False, rules: Rules | None = None, template: int = 0
) -> Tally:
    task = tasks_pb2.TaskTemplate()
    task.metadata.retries.retries = template
    node = workflow_pb2.Node()
    node.metadata.retries.retries = retries
    node.metadata.interruptible = interruptible
    return Tally(rules or Rules(), policy_of(task, node))


def attempts(count: Tally, *failures: Failure) -> tuple[int, Failure]:
    """How many attempts there are when they fail like this (the last one for ever), and the end."""
    number = 0
    while True:
        failure = failures[min(number, len(failures) - 1)]
        number += 1
        if last := count.final(failure):
            return number, last


@pytest.mark.parametrize("retries", [1, 3, 6])
def test_lost_pods_have_three_more_attempts_whatever_retries_says(retries: int) -> None:
    number, last = attempts(tally(retries), LOST)
    assert number == 4
    assert last.message == "[3/3] currentAttempt done. Last Error: SYSTEM::lost"
    assert last.code == "RetriesExhausted|Interrupted"
    assert (last.kind, last.recoverable) == (USER, False)


@pytest.mark.parametrize(("retries", "expected"), [(0, 1), (1, 2), (2, 3), (6, 7)])
def test_memory_that_ran_out_counts_against_retries(retries: int, expected: int) -> None:
    number, last = attempts(tally(retries), OUT_OF_MEMORY)
    assert number == expected
    said = f"[{expected}/{expected}] currentAttempt done. Last Error: USER::full"
    assert (last.code, last.message) == ("RetriesExhausted|OOMKilled", said)


def test_each_kind_of_failure_has_its_own_count() -> None:
    number, last = attempts(tally(1), LOST, LOST, OUT_OF_MEMORY, LOST, LOST)
    assert (number, last.message[:5]) == (5, "[3/3]")
    number, last = attempts(tally(1), LOST, LOST, OUT_OF_MEMORY, OUT_OF_MEMORY)
    assert (number, last.message[:5]) == (4, "[2/2]")


@pytest.mark.parametrize("failure", [LOST, OUT_OF_MEMORY])
def test_a_cluster_that_ignores_the_cause_counts_all_against_retries(failure: Failure) -> None:
    rules = Rules(ignore_retry_cause=True)
    number, last = attempts(tally(5, rules=rules), failure)
    assert (number, last.message[:5]) == (6, "[6/6]")


def test_an_error_that_is_final_is_told_as_it_is() -> None:
    failure = Failure("USER:RuntimeError", "Trace: …", kind=USER)
    assert attempts(tally(3), failure) == (1, failure)


def test_spot_nodes_are_for_the_first_three_attempts_that_lose_their_pods() -> None:
    count = tally(5, interruptible=True)
    seen = []
    while True:
        seen.append(count.interruptible)
        if count.final(LOST):
            break
    assert seen == [True, True, True, False]
    assert not tally(5).interruptible


def test_of_a_cluster_that_ignores_the_cause_all_attempts_but_the_last_are() -> None:
    rules = Rules(ignore_retry_cause=True)
    count, seen = tally(5, interruptible=True, rules=rules), []
    while True:
        seen.append(count.interruptible)
        if count.final(LOST):
            break
    assert seen == [True] * 5 + [False]
    assert tally(0, interruptible=True, rules=rules).interruptible


def test_retries_of_an_override_that_are_zero_are_the_templates() -> None:
    assert attempts(tally(0, template=3), OUT_OF_MEMORY)[0] == 4
    assert attempts(tally(2, template=3), OUT_OF_MEMORY)[0] == 3
    assert attempts(tally(0, template=0), OUT_OF_MEMORY)[0] == 1
    assert attempts(tally(0, rules=Rules(max_attempts=2)), OUT_OF_MEMORY)[0] == 2


def test_a_task_that_runs_alone_has_the_retries_of_its_template_and_no_more() -> None:
    task = tasks_pb2.TaskTemplate()
    task.metadata.retries.retries = 2
    task.metadata.interruptible = True
    task.metadata.timeout.FromTimedelta(timedelta(minutes=1))
    (node,) = workflow_of(task).primary.template.nodes
    found = policy_of(task, node)
    assert (found.retries, found.timeout, found.interruptible) == (2, None, False)


# What is said of a lost pod


def pod(tmp_path: Path, log: str = "step 1\nstep 2\n", name: str = "abc-n0-0-dn6-0") -> Pod:
    path = tmp_path / "log"
    path.write_text(log)
    return Pod(
        node="n0-0-dn6",
        task="tasks.vqa_sft.vqa_sft",
        attempt=0,
        index=None,
        arguments=[],
        variables={},
        image="",
        folder=tmp_path / name,
        log=path,
        checkpoint="",
        list_keys=lambda prefix: [],
    )


def ended(lost: Pod, kind: str = "python-task") -> Failure:
    with pytest.raises(Failure) as caught:
        outcome(None, "", tasks_pb2.TaskTemplate(type=kind), [lost])  # type: ignore[arg-type]
    return caught.value


@pytest.mark.parametrize("code", [137, 247])
def test_a_killed_pod(tmp_path: Path, code: int) -> None:
    lost = pod(tmp_path)
    lost.exit_code = code
    failure = ended(lost)
    assert (failure.code, failure.kind, failure.recoverable) == ("Interrupted", SYSTEM, True)
    assert failure.message == (
        "Pod failed. No message received from kubernetes.\r\n[abc-n0-0-dn6-0] terminated with exit "
        f"code ({code}). Reason [Error]. Message: \nstep 1\nstep 2\n."
    )


def test_a_pod_that_ran_out_of_memory(tmp_path: Path) -> None:
    lost = pod(tmp_path)
    lost.run_out_of_memory()
    lost.exit_code = 247
    failure = ended(lost)
    assert (failure.code, failure.kind, failure.recoverable) == ("OOMKilled", USER, True)
    assert "terminated with exit code (247). Reason [OOMKilled]. Message: \n" in failure.message


def test_the_container_of_a_pod_template_has_a_name_of_its_own(tmp_path: Path) -> None:
    lost = pod(tmp_path)
    lost.exit_code, lost.container = 137, "primary"
    assert "[primary] terminated with exit code (137)" in ended(lost).message


def test_a_pod_that_is_deleted(tmp_path: Path) -> None:
    lost = pod(tmp_path)
    assert deleted_object("siqvl-development", [lost]) is None
    lost.drain()
    failure = deleted_object("siqvl-development", [lost])
    assert failure is not None
    assert (failure.code, failure.kind) == ("UnexpectedObjectDeletion", SYSTEM)
    assert failure.message == (
        "object [siqvl-development/abc-n0-0-dn6-0] terminated in the background, manually"
    )


def test_a_pod_that_is_gone(tmp_path: Path) -> None:
    lost = pod(tmp_path)
    lost.vanish()
    failure = deleted_object("siqvl-development", [lost])
    assert failure is not None
    assert (failure.code, failure.kind) == ("ResourceDeletedExternally", SYSTEM)
    assert failure.message == (
        "resource not found, name [siqvl-development/abc-n0-0-dn6-0]. "
        'reason: pods "abc-n0-0-dn6-0" not found'
    )


def test_a_worker_that_is_lost_fails_its_job(tmp_path: Path) -> None:
    lost = pod(tmp_path, name="abc-n0-0-dn6-0-worker-1")
    lost.exit_code = 137
    failure = ended(lost, "pytorch")
    assert (failure.code, failure.kind) == ("DownstreamSystemError", USER)
    assert failure.message == (
        "Job failed:\n\tPyTorchJobFailed - PyTorchJob abc-n0-0-dn6-0 is failed because "
        "1 Worker replica(s) failed."
    )


def test_of_a_log_its_end_is_told() -> None:
    lines = [f"step {number}\n" for number in range(100)]
    assert log_tail("".join(lines)) == "".join(lines[20:])
    long = log_tail("".join(f"{number:099}\n" for number in range(100)))
    assert len(long) == 2048
    assert long.endswith(f"{99:099}\n")


def test_elements_of_a_map_are_told_by_what_they_say() -> None:
    elements = [Element(number) for number in range(5)]
    for number, said in {0: "full", 1: "full", 3: "full", 2: "lost"}.items():
        elements[number].error = Failure("RetriesExhausted|…", said, kind=USER)
    elements[4].error = Aborted("element 0 failed")
    failure = _failed(elements)
    assert (failure.code, failure.recoverable) == ("", False)
    assert failure.message == "[0-1][3]: full\n[2]: lost\n"


# What is handed to a pod


def test_a_first_attempt_gets_two_quotes_for_a_checkpoint() -> None:
    first, second = (
        Attempt(0, "out", "raw", "s3://a/_flytecheckpoints", before) for before in ("", "s3://b")
    )
    parts = ["--prev-checkpoint", "{{.prevCheckpointPrefix}}"]
    assert _arguments(parts, "in", first) == ["--prev-checkpoint", '""']
    assert _arguments(parts, "in", second) == ["--prev-checkpoint", "s3://b"]


@pytest.mark.parametrize(
    ("seconds", "said"), [(60, "1m0s"), (3, "3s"), (90, "1m30s"), (5400, "1h30m0s"), (1.5, "1.5s")]
)
def test_durations_are_written_as_go_does(seconds: float, said: str) -> None:
    assert in_go(seconds) == said


def test_a_pod_templates_container_is_its_primary_one() -> None:
    task = tasks_pb2.TaskTemplate(type="python-task")
    task.config["primary_container_name"] = "primary"
    task.k8s_pod.pod_spec.update(
        {
            "terminationGracePeriodSeconds": 60,
            "containers": [
                {"name": "other", "image": "b"},
                {
                    "name": "primary",
                    "image": "a",
                    "args": ["pyflyte-execute", "--inputs"],
                    "env": [{"name": "A", "value": "1"}],
                    "resources": {"limits": {"memory": "1Gi"}},
                },
            ],
        }
    )
    found = container_of(task, workflow_pb2.Node())
    assert (found.name, found.image, found.grace) == ("primary", "a", 60)
    assert (found.arguments, found.variables) == (["pyflyte-execute", "--inputs"], {"A": "1"})
    assert [(entry.name, entry.value) for entry in found.resources.limits] == [
        (tasks_pb2.Resources.MEMORY, "1Gi")
    ]
    node = workflow_pb2.Node()
    node.task_node.overrides.container_image = "c"
    assert container_of(task, node).image == "c"


def test_nothing_is_left_of_a_task_without_outputs() -> None:
    task = tasks_pb2.TaskTemplate(type="python-task")

    class Empty:
        def list(self, prefix: str) -> list[str]:
            return []

        def message(self, address: str, kind: object) -> None:
            return None

    assert outcome(Empty(), "", task, []) == literals_pb2.LiteralMap()  # type: ignore[arg-type]
