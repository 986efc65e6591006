"""Executions that are aborted or given up, and those that recover or relaunch others, on loopback.

What Flyte does is in the modules of the loopback, each with where it was seen.
"""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import grpc
import pytest
from flyteidl.core.execution_pb2 import WorkflowExecution
from flytekit.clients.friendly import SynchronousFlyteClient
from flytekit.configuration import PlatformConfig
from flytekit.exceptions.base import FlyteException
from flytekit.models.core.identifier import WorkflowExecutionIdentifier
from loopback.cluster import Cluster
from loopback.records import Execution

ROOT = Path(__file__).parents[2]

pytestmark = pytest.mark.integration


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """Its pods are started and not forked: signals come to them as to those of a cluster."""
    folder = tmp_path_factory.mktemp("cluster")
    images = {"toy": "registry/toy:7"}
    with Cluster(images=images, slots=2, folder=folder, training_operator=False) as cluster:
        yield cluster


@pytest.fixture(scope="module")
def admin(cluster: Cluster) -> SynchronousFlyteClient:
    """What flytectl and the console ask for, asked for by flytekit."""
    return SynchronousFlyteClient(PlatformConfig(f"127.0.0.1:{cluster.port}", insecure=True))


@pytest.fixture(scope="module")
def started(cluster: Cluster, project: Path) -> Callable[..., Execution]:
    def start(file: str, name: str) -> Execution:
        subprocess.run(
            [
                *(Path(sys.executable).parent / "pyflyte", "-c", str(cluster.config_file)),
                *("run", "--remote", file, name),
            ],
            cwd=project,
            env=cluster.environment(),
            capture_output=True,
            timeout=120,
            check=True,
        )
        return cluster.executions[-1]

    return start


def id_of(execution: Execution) -> WorkflowExecutionIdentifier:
    return WorkflowExecutionIdentifier.from_flyte_idl(execution.id)


def ended(execution: Execution) -> str:
    assert execution.finished.wait(120)
    return execution.state


def wait_until(holds: Callable[[], object]) -> None:
    end = time.monotonic() + 60
    while not holds():
        assert time.monotonic() < end
        time.sleep(0.05)


@pytest.fixture(scope="module")
def aborted(cluster: Cluster, admin: SynchronousFlyteClient, started) -> Execution:
    """Stopped when one task had succeeded, and another had saved a step."""
    execution = started("toy/flow.py", "retried")

    def is_under_way() -> bool:
        flaky, trained = execution.of_task("flaky"), execution.of_task("trained")
        return (
            bool(flaky and trained and trained[0].pods)
            and flaky[0].state == "SUCCEEDED"
            and bool(trained[0].pods[0].checkpoint_keys())
        )

    wait_until(is_under_way)
    admin.terminate_execution(id_of(execution), "enough")
    assert ended(execution) == "ABORTED"
    return execution


def test_an_abort_gives_pods_their_grace_and_tells_why(admin, aborted: Execution) -> None:
    (trained,) = aborted.of_task("trained")
    assert trained.state == "ABORTED"
    assert len(trained.attempts) == 1  # an abort is not tried again
    assert trained.pods[0].exit_code in (143, 241)  # of SIGTERM
    assert trained.pods[0].seconds > 0
    closure = admin.get_execution(id_of(aborted)).closure
    assert closure.phase == WorkflowExecution.ABORTED
    assert closure.abort_metadata.cause == "enough"


def test_what_has_ended_cannot_be_aborted(admin, aborted: Execution) -> None:
    with pytest.raises(FlyteException, match="already terminated workflow execution"):
        admin.terminate_execution(id_of(aborted), "once more")


def test_an_aborted_execution_is_recovered(cluster: Cluster, admin, aborted: Execution) -> None:
    again = admin.recover_execution(id_of(aborted), "recovered")
    assert again.name == "recovered"
    execution = cluster.executions[-1]
    assert ended(execution) == "SUCCEEDED"
    (flaky,), (trained,) = execution.of_task("flaky"), execution.of_task("trained")
    assert flaky.state == "RECOVERED"
    assert not flaky.pods
    assert flaky.outputs == aborted.of_task("flaky")[0].outputs
    assert trained.attempts[0].previous_checkpoint == (
        aborted.of_task("trained")[0].attempts[-1].checkpoint
    )
    # 100 for the step that was saved there, and the two that it was asked for
    assert execution.outputs.literals["steps"].scalar.primitive.integer == 102
    spec = admin.get_execution(id_of(execution)).spec.to_flyte_idl()
    assert spec.metadata.reference_execution.name == aborted.name


def test_a_relaunch_runs_all_of_it_again(cluster: Cluster, admin, aborted: Execution) -> None:
    admin.relaunch_execution(id_of(aborted), "again")
    execution = cluster.executions[-1]
    wait_until(lambda: execution.of_task("trained") and execution.of_task("trained")[0].pods)
    (trained,) = execution.of_task("trained")
    assert trained.attempts[0].previous_checkpoint == ""
    admin.terminate_execution(id_of(execution), "seen")
    assert ended(execution) == "ABORTED"
    assert execution.inputs == aborted.inputs


def test_the_plan_and_the_failure_node_of_one_that_failed_are_not_run_again(
    cluster: Cluster, admin, started
) -> None:
    """Read in Propeller 1.16.8: an execution that recovers takes both as they were."""
    failed = started("toy/flow.py", "failing")
    assert ended(failed) == "FAILED"
    (told,) = failed.of_task("told")
    assert told.state == "SUCCEEDED"
    admin.recover_execution(id_of(failed))
    again = cluster.executions[-1]
    assert ended(again) == "FAILED"
    (risky,), (broken,), (told,) = (again.of_task(name) for name in ("risky", "broken", "told"))
    assert not risky.pods
    assert [pod.exit_code for pod in broken.pods] == [0]  # it wrote down what was wrong
    assert told.state == "RECOVERED"
    assert not told.pods


def test_without_an_operator_propeller_gives_up(admin, started) -> None:
    execution = started("toy/gang.py", "meeting")
    assert ended(execution) == "FAILED"
    error = admin.get_execution(id_of(execution)).closure.error
    said = "max number of system retry attempts [11/10] exhausted. Last known status message: "
    assert said in error.message
    assert not execution.of_task("noticed")  # the failure node is not run
    assert not execution.pods


def test_an_execution_that_nobody_knows_is_not_recovered(admin) -> None:
    unknown = WorkflowExecutionIdentifier("flytesnacks", "development", "unknown")
    with pytest.raises((FlyteException, grpc.RpcError), match="unknown"):
        admin.recover_execution(unknown)
