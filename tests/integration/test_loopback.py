"""The loopback cluster does what Flyte does, as real clients see it."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import grpc
import pytest
from flyteidl.admin import execution_pb2
from flyteidl.service import admin_pb2_grpc
from loopback.attempts import Rules
from loopback.cluster import Cluster
from loopback.pods import Pod, ProcessPods
from loopback.records import Execution, NodeRecord
from loopback.tasks import at_once

ROOT = Path(__file__).parents[2]
RUN = ("run", "--remote", "--wait", "--poll-interval", "1")
VARIABLES = {"OMP_NUM_THREADS": "1", "OF_THE_CLUSTER": "1"}
SECRETS = {"toy/token": "red", "toy/plain": "green", "toy/file": "blue"}

pytestmark = pytest.mark.integration


@dataclass(frozen=True)
class Done:
    """A client command that ended, and the execution it started."""

    code: int
    printed: str
    execution: Execution


Client = Callable[..., Done]


@dataclass
class EitherPods:
    """Pods that are forked or, where their own start and end count, started."""

    forked: ProcessPods
    started: ProcessPods
    fork: bool = True

    def start(self, pod: Pod) -> subprocess.Popen[bytes]:
        return (self.forked if self.fork else self.started).start(pod)

    def kill(self, pod: Pod) -> None:
        self.started.kill(pod)

    def terminate(self, pod: Pod) -> None:
        self.started.terminate(pod)


@pytest.fixture(scope="module")
def pods(forked: Path) -> EitherPods:
    return EitherPods(ProcessPods(forked), ProcessPods())


@pytest.fixture
def started_pods(pods: EitherPods) -> Iterator[None]:
    pods.fork = False
    yield
    pods.fork = True


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory, pods: EitherPods) -> Iterator[Cluster]:
    folder = tmp_path_factory.mktemp("cluster")
    with Cluster(
        images={"toy": "registry/toy:7"},
        variables=VARIABLES,
        secrets=SECRETS,
        slots=2,
        folder=folder,
        pods=pods,
    ) as cluster:
        yield cluster
    left = [pod for pod in cluster.pods if Path(f"/proc/{pod.pid}").exists()]
    assert not left
    assert not (folder / "pods").exists()


@pytest.fixture(scope="module")
def pyflyte(cluster: Cluster, project: Path, forked: Path) -> Client:
    def run(*arguments: str, code: int = 0) -> Done:
        done = subprocess.run(
            [forked / "pyflyte", "-c", str(cluster.config_file), *arguments],
            cwd=project,
            env=cluster.environment(),
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
        printed = done.stdout + done.stderr
        assert done.returncode == code, printed
        return Done(
            done.returncode, printed, cluster.executions[-1] if cluster.executions else None
        )

    return run


def value(execution: Execution | NodeRecord, name: str) -> object:
    """An output of simple type, or a list of such."""
    literal = execution.outputs.literals[name]
    literals = literal.collection.literals if literal.HasField("collection") else [literal]
    values = [getattr(p := each.scalar.primitive, p.WhichOneof("value")) for each in literals]
    return values if literal.HasField("collection") else values[0]


def text_map(execution: Execution) -> dict[str, str]:
    literals = execution.outputs.literals["o0"].map.literals
    return {name: each.scalar.primitive.string_value for name, each in literals.items()}


class KillTheFirst:
    """A drill: SIGKILL for the first pod of a task, once it has saved something."""

    def __init__(self, task: str):
        self.task = task
        self.saved: list[list[str]] = []

    def __call__(self, pod: Pod) -> None:
        if pod.task.endswith(self.task) and not self.saved:
            while not (keys := pod.checkpoint_keys()):
                time.sleep(0.1)
            self.saved.append(keys)
            pod.kill()


@pytest.fixture(scope="module")
def first(pyflyte: Client) -> Execution:
    done = pyflyte(*RUN, "toy/flow.py", "flow")
    assert "has succeeded" in done.printed
    return done.execution


def test_a_workflow_of_all_kinds_of_tasks(first: Execution) -> None:
    assert value(first, "total") == 2 + 3 + 6
    assert value(first, "scaled") == [6, 12]
    assert not any(node.cached for node in first.nodes)
    assert {node.state for node in first.nodes} == {"SUCCEEDED"}


@pytest.mark.usefixtures("started_pods")
def test_pods_are_tried_again(cluster: Cluster, pyflyte: Client) -> None:
    """Killed from outside, and after an error that says so."""
    cluster.on_pod(KillTheFirst("trained"))
    execution = pyflyte(*RUN, "toy/flow.py", "retried").execution
    cluster.on_pod(None)
    assert value(execution, "steps") == 102
    assert value(execution, "attempt") == 1
    killed, restored = execution.of_task("trained")[0].attempts
    assert killed.pods[0].exit_code == 137
    assert killed.error
    assert killed.error.code == "Interrupted"
    assert killed.previous_checkpoint == ""
    arguments = killed.pods[0].arguments
    assert arguments[arguments.index("--prev-checkpoint") + 1] == '""'
    assert restored.previous_checkpoint == killed.checkpoint
    assert restored.checkpoint != killed.checkpoint
    assert restored.output_prefix != killed.output_prefix
    failed, _ = execution.of_task("flaky")[0].attempts
    assert failed.error
    assert "try again" in failed.error.message


def test_overrides_of_a_node_are_honoured(first: Execution) -> None:
    (node, _) = first.of_task("counted")
    assert node.policy
    assert node.policy.retries == 3
    assert node.policy.cache_version == "of the node"
    assert node.policy.image == "other/image:2"
    requests = {str(entry.name): entry.value for entry in node.policy.resources.requests}
    assert set(requests.values()) == {"2", "3Gi"}
    assert node.policy.extended_resources.shared_memory.size_limit == "1Gi"
    assert first.of_task("written")[0].policy.image == "registry/toy:7"


def test_what_was_made_before_is_found_again(first: Execution, pyflyte: Client) -> None:
    """The folder lies at another address, an ignored input differs: the content counts."""
    arguments = (*RUN, "toy/flow.py", "flow", "--label", "another")
    second = pyflyte(*arguments).execution
    assert second.of_task("written")[0].outputs != first.of_task("written")[0].outputs
    hits = {node.task_name.split(".")[-1] for node in second.nodes if node.cached}
    assert hits == {"measured", "gathered"}
    (several,) = (node for node in second.nodes if node.is_array)
    assert all(element.cached for element in several.elements)
    assert not second.of_task("counted")
    assert {pod.task.split(".")[-1] for pod in second.pods} == {"written"}
    assert value(second, "total") == value(first, "total")


def test_another_input_is_made_anew(first: Execution, pyflyte: Client) -> None:
    inputs = ("--settings", '{"files": 3}', "--times", "1")
    third = pyflyte(*RUN, "toy/flow.py", "flow", *inputs).execution
    assert not any(node.cached for node in third.nodes)
    assert value(third, "total") == 2 + 6


def test_an_error_reaches_client_and_failure_node(pyflyte: Client) -> None:
    done = pyflyte(*RUN, "toy/flow.py", "failing", code=255)
    assert "ValueError: no luck with 3" in done.printed
    failed = [*done.execution.of_task("risky"), *done.execution.of_task("broken")]
    assert [node.state for node in failed] == ["FAILED", "FAILED"]
    assert [len(node.attempts) for node in failed] == [1, 1]
    (stopped,) = done.execution.of_task("slow")
    (told,) = done.execution.of_task("told")
    assert stopped.state == "ABORTED"
    assert all(pod.exit_code in (143, 241) for pod in stopped.pods)  # by SIGTERM
    assert told.state == "SUCCEEDED"
    printed = told.pods[0].printed()
    assert "told: 3, " in printed
    assert "no luck with 3" in printed
    assert done.execution.error
    assert done.execution.error.code == "USER:RuntimeError"


def test_time_is_limited(pyflyte: Client) -> None:
    """Of the second attempt the time is over with that of its node, which is twice as much."""
    done = pyflyte(*RUN, "toy/flow.py", "late", code=255)
    assert done.execution.error
    assert (done.execution.error.code, done.execution.error.message) == (
        "Timeout",
        "Timeout in node",
    )
    (node,) = done.execution.nodes
    assert node.state == "TIMED_OUT"
    first, second = node.attempts
    assert first.error
    assert first.error.message == "task execution timeout [3s] expired"
    assert second.error
    assert second.error.message == "task active timeout [6s] expired"


# Pods that are lost


@pytest.fixture
def lost(cluster: Cluster, pyflyte: Client) -> Iterator[Callable[..., Done]]:
    """A pipeline each pod of whose task ends in one way."""

    def run(how: str, *arguments: str, workflow: str = "planned", code: int = 255) -> Done:
        def end(pod: Pod) -> None:
            if "lost" in pod.task and pod.index in (None, 1):
                while "waiting" not in pod.printed() and pod.index is None:
                    time.sleep(0.05)
                if how:
                    getattr(pod, how)()

        cluster.on_pod(end)
        return pyflyte(*RUN, "toy/flow.py", workflow, *arguments, code=code)

    yield run
    cluster.on_pod(None)
    cluster.tasks.rules, cluster.tasks.waits = Rules(), at_once


def told(execution: Execution) -> str:
    """What the failure node was given."""
    (node,) = execution.of_task("told_too")
    return node.pods[0].printed().replace("\r\n", "\n")


@pytest.mark.parametrize(
    ("how", "code", "said"),
    [
        ("kill", "Interrupted", r"\[{pod}\] terminated with exit code \(137\)\. Reason \[Error\]"),
        (
            "drain",
            "UnexpectedObjectDeletion",
            r"object \[\S+/{pod}\] terminated in the background, manually",
        ),
        (
            "vanish",
            "ResourceDeletedExternally",
            r'resource not found, name \[\S+/{pod}\]\. reason: pods "{pod}" not found',
        ),
    ],
)
def test_lost_pods_are_made_up_for_three_times(lost, how: str, code: str, said: str) -> None:
    done = lost(how, "--retries", "1")
    (node,) = done.execution.of_task("lost")
    assert [attempt.interruptible for attempt in node.attempts] == [True, True, True, False]
    assert {attempt.error.code for attempt in node.attempts} == {code}
    pods = [f"{done.execution.name}-{node.id}-{number}" for number in range(4)]
    assert [pod.name for pod in node.pods] == pods
    assert done.execution.error.code == f"RetriesExhausted|{code}"
    assert "[3/3] currentAttempt done. Last Error: SYSTEM::" in told(done.execution)
    assert re.search(said.format(pod=pods[-1]), told(done.execution))


@pytest.mark.parametrize(("retries", "attempts"), [(1, 2), (0, 3)])
def test_memory_that_runs_out_counts_against_retries(lost, retries: int, attempts: int) -> None:
    """Those of an override that are 0 are the task's own, which are 2."""
    done = lost("run_out_of_memory", "--retries", str(retries))
    (node,) = done.execution.of_task("lost")
    assert len(node.attempts) == attempts
    begin = f"[{attempts}/{attempts}] currentAttempt done. Last Error: USER::Pod failed. "
    assert begin in told(done.execution)
    assert "Reason [OOMKilled]. Message: \n\nwaiting\n." in told(done.execution)


def test_a_cluster_may_ignore_the_cause(cluster: Cluster, lost) -> None:
    cluster.tasks.rules = Rules(ignore_retry_cause=True)
    (node,) = lost("kill", "--retries", "1").execution.of_task("lost")
    assert [attempt.interruptible for attempt in node.attempts] == [True, False]


def test_a_node_has_twice_its_time_and_says_nothing(lost, cluster: Cluster) -> None:
    done = lost("", "--retries", "5", "--limit", "2")
    (node,) = done.execution.of_task("lost")
    assert (node.state, len(node.attempts)) == ("TIMED_OUT", 2)
    (dynamic,) = done.execution.of_task("losing")
    assert dynamic.state == "FAILED"
    said = "[1/1] currentAttempt done. Last Error: UNKNOWN::Dynamic workflow failed"
    assert said in told(done.execution)
    assert done.execution.error.code == "RetriesExhausted|DynamicNodeFailing"


def test_a_pod_that_waits_for_a_machine_has_timed_out_without_running(lost, cluster) -> None:
    cluster.tasks.waits = lambda task, attempt: 60.0 if task.endswith("lost") else 0.0
    done = lost("kill", "--limit", "1")
    (node,) = done.execution.of_task("lost")
    assert node.state == "TIMED_OUT"
    assert not any(pod.started for pod in node.pods)


def test_an_element_of_a_map_counts_its_own_attempts(lost) -> None:
    done = lost("run_out_of_memory", workflow="elements")
    (node,) = done.execution.nodes
    assert [len(element.attempts) for element in node.elements] == [1, 3, 1]
    said = done.execution.error.message
    assert said.startswith("[1]: [3/3] currentAttempt done. Last Error: USER::Pod failed. ")
    assert f"[{done.execution.name}-n0-0-n1-2] terminated" in said
    assert done.execution.error.code == ""


def test_conditions_sub_workflows_and_launch_plans(cluster: Cluster, pyflyte: Client) -> None:
    before = len(cluster.executions)
    pyflyte(*RUN, "toy/flow.py", "shapes")
    outer, launched = cluster.executions[before:]
    assert value(outer, "o0") == value(launched, "o0") == 16
    assert [node.id for node in outer.nodes if node.parent] == [
        "n0-0-n0",
        "n1-0-n1",
        "n1-0-n1-0-n0",
    ]


@pytest.mark.usefixtures("started_pods")
def test_pods_start_clean(pyflyte: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OF_THE_CLIENT", "1")
    execution = pyflyte(*RUN, "--env", "OF_THE_RUN=1", "toy/pieces.py", "surroundings").execution
    found = text_map(execution)
    assert "OF_THE_CLIENT" not in found
    assert {found[f"OF_THE_{origin}"] for origin in ("TASK", "RUN", "CLUSTER")} == {"1"}
    assert re.fullmatch(r"fast\w+\.tar\.gz toy", found["files"])  # the code, and nothing else
    assert found["at home"] == ""
    assert found["FLYTE_INTERNAL_EXECUTION_ID"] == execution.name
    assert found["FLYTE_INTERNAL_TASK_NAME"] == "toy.pieces.surroundings"
    assert found["FLYTE_ATTEMPT_NUMBER"] == "0"
    assert found["secrets"] == "red green blue"
    assert found["_FSEC_TOY_TOKEN"] == "red"
    assert found["PLAIN"] == "green"


def test_a_missing_secret_is_no_error(pyflyte: Client) -> None:
    """Seen on Flyte 1.16.8, whose pods refer to secrets with `optional: true`."""
    execution = pyflyte(*RUN, "toy/pieces.py", "secretive").execution
    assert execution.succeeded
    (pod,) = execution.pods
    assert not [name for name in pod.variables if name.startswith("_FSEC_")]


def test_a_cache_can_be_overwritten(cluster: Cluster, pyflyte: Client) -> None:
    arguments = ("toy/pieces.py", "scaled", "--count", "5", "--by", "[1]")
    made = pyflyte(*RUN, *arguments).execution
    assert not made.nodes[0].cached
    assert again(cluster, made).nodes[0].cached
    (node,) = pyflyte(*RUN, "--overwrite-cache", *arguments).execution.nodes
    assert not node.cached
    assert node.pods


def again(cluster: Cluster, execution: Execution) -> Execution:
    """The same once more, without a client's start."""
    id = execution.id
    request = execution_pb2.ExecutionCreateRequest(
        project=id.project, domain=id.domain, spec=execution.spec, inputs=execution.inputs
    )
    with grpc.insecure_channel(f"127.0.0.1:{cluster.port}") as channel:
        admin_pb2_grpc.AdminServiceStub(channel).CreateExecution(request)
    assert cluster.executions[-1].finished.wait(timeout=60)
    return cluster.executions[-1]


@pytest.mark.usefixtures("started_pods")
def test_replicas_meet(pyflyte: Client) -> None:
    execution = pyflyte(*RUN, "toy/gang.py", "met").execution
    found = text_map(execution)
    assert found["PET_NNODES"] == "2:2"
    assert found["WORLD_SIZE"] == "2"
    assert len(execution.pods) == 2


@pytest.mark.parametrize("task", ["bereft", "cleared"])
def test_a_lost_worker_fails_its_job(pyflyte: Client, task: str) -> None:
    """The job of an attempt that is tried again is deleted; that of the last stays."""
    execution = pyflyte(*RUN, "toy/gang.py", task, code=255).execution
    (node,) = execution.nodes
    assert [attempt.error.code for attempt in node.attempts] == ["DownstreamSystemError"] * 2
    assert execution.error.code == "RetriesExhausted|DownstreamSystemError"
    (first, _), (last, _) = (attempt.pods for attempt in node.attempts)
    assert "is failed because 1 Worker replica(s) failed." in execution.error.message
    assert ended(first) in TOLD
    if task == "cleared":
        assert ended(last) in TOLD
        return
    time.sleep(1)
    assert last.exit_code is None
    last.kill()
    assert ended(last) == 128 + signal.SIGKILL


def test_a_job_has_succeeded_when_any_worker_has(pyflyte: Client) -> None:
    execution = pyflyte(*RUN, "toy/gang.py", "hasty", code=255).execution
    (attempt,) = execution.nodes[0].attempts
    assert attempt.error.code == "OutputsNotFound"
    assert ended(attempt.pods[0]) in TOLD


#: Exit codes of what SIGTERM ends, itself and through `pyflyte-fast-execute`.
TOLD = {128 + signal.SIGTERM, 256 - signal.SIGTERM}


def ended(pod: Pod) -> int | None:
    """The exit code of a pod that is about to end."""
    end = time.monotonic() + 20
    while pod.exit_code is None and time.monotonic() < end:
        time.sleep(0.05)
    return pod.exit_code


def test_launch_plans_are_registered_and_activated(cluster: Cluster, pyflyte: Client) -> None:
    place = ("-p", "flytesnacks", "-d", "development")
    pyflyte("register", *place, "--version", "v1", "--activate-launchplans", "toy")
    name = ("flytesnacks", "development", "toy.nightly")
    assert cluster.registry.active[name] == (*name, "v1")
    _, spec = cluster.registry.launch_plans.specs[(*name, "v1")]
    assert spec.entity_metadata.schedule.cron_schedule.schedule == "0 3 * * *"
    pyflyte("launchplan", *place, "toy.nightly", "v1", "--deactivate")
    assert name not in cluster.registry.active
    pyflyte("launchplan", *place, "toy.nightly", "v1", "--activate")
    assert cluster.registry.active[name] == (*name, "v1")
    execution = pyflyte(*RUN, *place, "remote-launchplan", "toy.nightly:v1").execution
    assert value(execution, "o0") == 8


@pytest.mark.usefixtures("started_pods")
def test_an_execution_can_be_stopped(cluster: Cluster, pyflyte: Client) -> None:
    execution = pyflyte("run", "--remote", "toy/pieces.py", "slow").execution
    while not (execution.pods and execution.pods[0].pid):
        time.sleep(0.1)
    with grpc.insecure_channel(f"127.0.0.1:{cluster.port}") as channel:
        request = execution_pb2.ExecutionTerminateRequest(id=execution.id, cause="enough")
        admin_pb2_grpc.AdminServiceStub(channel).TerminateExecution(request)
    assert execution.finished.wait(timeout=10)
    assert execution.state == "ABORTED"
    assert execution.pods[0].exit_code in (143, 241)


def test_a_misspelt_key_stays_with_the_client(cluster: Cluster, pyflyte: Client) -> None:
    before = len(cluster.executions)
    done = pyflyte(*RUN, "toy/flow.py", "flow", "--settings", '{"fils": 3}', code=1)
    assert "fils" in done.printed
    assert len(cluster.executions) == before


def test_the_command(project: Path) -> None:
    done = subprocess.run(
        [
            *(sys.executable, "-m", "tests.loopback", "--image", "toy=registry/toy:7", "--"),
            *("sh", "-c", f"cd {project} && pyflyte -c {{config}} {' '.join(RUN)} $@", "run"),
            *("toy/flow.py", "doubled", "--number", "4"),
        ],
        cwd=ROOT,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "toy.flow.doubled" in done.stdout.splitlines()[-1]
    assert "SUCCEEDED" in done.stdout.splitlines()[-1]
