"""Pipelines whose execution is aborted, given up or recovered: their runs say what became of them.

Of Flyte's own the rest is in `test_ended_executions.py`.
"""

from __future__ import annotations

import subprocess
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from flytekit.clients.friendly import SynchronousFlyteClient
from flytekit.configuration import PlatformConfig
from flytekit.models.core.identifier import WorkflowExecutionIdentifier
from loopback.cluster import Cluster
from loopback.image_pods import ImagePods
from loopback.pods import Pod, ProcessPods
from loopback.records import Execution
from loopback.tracking import mlflow_server
from mlflow.entities import Run

from siqvl.recipe import Recipe
from siqvl.tracking.runs import REASON, client
from siqvl.tracking.store import HEARTBEAT
from tasks.preemption import ARCHIVE
from tests.integration.conftest import CODE, IMAGES, Remote

pytestmark = pytest.mark.integration

PIPELINE = ("workflows/full_pipeline.py", "full_pipeline")
STAGE = "projector_alignment"


@dataclass
class StartedPods:
    """Pods that are forked, but for those of a stage: these get signals as on a cluster."""

    forked: ProcessPods
    started: ProcessPods

    def start(self, pod: Pod) -> subprocess.Popen[bytes]:
        of_stage = pod.task.endswith(f".{STAGE}")
        return (self.started if of_stage else self.forked).start(pod)

    def kill(self, pod: Pod) -> None:
        self.started.kill(pod)

    def terminate(self, pod: Pod) -> None:
        self.started.terminate(pod)


@dataclass
class Place:
    """A cluster whose FlyteAdmin its pods may ask."""

    remote: Remote

    @property
    def admin(self) -> SynchronousFlyteClient:
        endpoint = f"127.0.0.1:{self.remote.cluster.port}"
        return SynchronousFlyteClient(PlatformConfig(endpoint, insecure=True))

    def start(self, *arguments: str) -> Execution:
        self.remote.pyflyte("run", "--remote", "--copy", "all", *PIPELINE, *arguments)
        return self.remote.cluster.executions[-1]

    def runs(self, execution: Execution) -> list[Run]:
        """Its runs, that of the pipeline first."""
        store = client(self.remote.tracking)
        (experiment,) = [one for one in store.search_experiments() if one.name == "ended"]
        found = store.search_runs([experiment.experiment_id])
        mine = [run for run in found if execution.name in run.data.tags["flyte.execution"]]
        return sorted(mine, key=lambda run: run.data.tags.get("siqvl.kind") != "pipeline")


def id_of(execution: Execution) -> WorkflowExecutionIdentifier:
    return WorkflowExecutionIdentifier.from_flyte_idl(execution.id)


@pytest.fixture(scope="module")
def place(
    tmp_path_factory: pytest.TempPathFactory,
    small_recipe: Callable[..., Recipe],
    code,
    forked: Path,
) -> Iterator[Place]:
    folder = tmp_path_factory.mktemp("ended")
    checkout = folder / "checkout"
    checkout.mkdir()
    code(checkout, CODE)
    content = small_recipe(folder).model_dump(mode="json")
    content |= {"output_dir": "outputs", "tracking": {"experiment": "ended", "uri": None}}
    for part in ("vision", "language"):
        content["model"][part] = f"recipes/tiny_base/{part}"
    content["stages"][STAGE]["saving_steps"] = 1
    with mlflow_server(folder / "mlflow") as uri:
        variables = {"MLFLOW_TRACKING_URI": uri, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
        pods = ImagePods(checkout, StartedPods(ProcessPods(forked), ProcessPods()))
        with Cluster(
            images=IMAGES,
            variables=variables,
            folder=folder / "cluster",
            pods=pods,
            training_operator=False,
        ) as cluster:
            variables["SIQVL_FLYTE_ADMIN"] = f"http://127.0.0.1:{cluster.port}"
            cluster.tasks.variables = variables
            recipe = Recipe.model_validate(content)
            made = Remote(cluster, checkout, uri, pods, recipe, str(forked))
            made.write("small.yaml")
            yield Place(made)


@pytest.fixture(scope="module")
def aborted(place: Place) -> Execution:
    """Aborted while its first stage trains, once a state of that is in the store."""

    def change(content: dict) -> None:
        content["stages"][STAGE]["max_steps"] = 60

    execution = place.start("--recipe", place.remote.write("aborted.yaml", change))
    end = time.monotonic() + 240

    def has_saved() -> bool:
        nodes = execution.of_task(STAGE)
        if not (nodes and nodes[0].pods):
            return False
        return any(key.endswith(ARCHIVE) for key in nodes[0].pods[0].checkpoint_keys())

    while not has_saved():
        assert time.monotonic() < end, [(node.task_name, node.state) for node in execution.nodes]
        assert not execution.finished.is_set(), execution.error
        time.sleep(0.1)
    place.admin.terminate_execution(id_of(execution), "enough")
    assert execution.finished.wait(120)
    return execution


def test_an_abort_closes_all_runs_and_says_why(place: Place, aborted: Execution) -> None:
    assert aborted.state == "ABORTED"
    assert not aborted.of_task("close_run")  # Flyte runs no failure node
    pipeline, *others = place.runs(aborted)
    assert pipeline.info.status == "KILLED"
    said = f"execution flytesnacks/development/{aborted.name} was aborted in Flyte: enough"
    assert pipeline.data.tags[REASON] == said
    ends = {run.info.run_name: run.info.status for run in others}
    assert ends.pop(STAGE) == "KILLED"
    assert set(ends.values()) == {"FINISHED"}


def test_a_recovered_pipeline_ends_in_the_run_of_the_first(
    place: Place, aborted: Execution
) -> None:
    place.admin.recover_execution(id_of(aborted))
    execution = place.remote.cluster.executions[-1]
    assert execution.finished.wait(600)
    assert execution.succeeded, execution.error
    assert execution.of_task("open_run")[0].state == "RECOVERED"
    (stage,) = execution.of_task(STAGE)
    assert "continuing from" in stage.pods[0].printed()
    pipeline, *_ = place.runs(execution)
    tags = pipeline.data.tags
    assert pipeline.info.status == "FINISHED"
    assert REASON not in tags
    assert tags["flyte.execution"].endswith(f"/{execution.name}")
    assert tags["flyte.earlier_executions"].endswith(f"/{aborted.name}")
    assert pipeline.info.run_id in {run.info.run_id for run in place.runs(execution)}


def test_what_was_given_up_is_closed_by_the_next_execution(place: Place) -> None:
    """A job of two machines, where nothing knows such jobs."""

    def change(content: dict) -> None:
        content["distributed"] |= {"enabled": True, "nodes": 2, "shared_dir": "/tmp"}

    recipe = place.remote.write("given_up.yaml", change)
    given_up = place.start("--recipe", recipe)
    assert given_up.finished.wait(240)
    assert given_up.state == "FAILED"
    assert "system retry attempts [11/10] exhausted" in given_up.error.message
    assert not given_up.of_task("close_run")
    (pipeline, *_) = place.runs(given_up)
    assert pipeline.info.status == "RUNNING"
    long_ago = f"{time.time() - 3600:.0f} {int((time.time() - 3600) * 1000)}"
    client(place.remote.tracking).set_tag(pipeline.info.run_id, HEARTBEAT, long_ago)
    following = place.start("--recipe", recipe)
    assert following.finished.wait(240)
    (pipeline, *_) = place.runs(given_up)
    assert pipeline.info.status == "FAILED"
    assert "system retry attempts [11/10] exhausted" in pipeline.data.tags[REASON]
    (living, *_) = place.runs(following)
    assert living.info.status == "RUNNING"  # its execution is over, and nobody has come by yet
