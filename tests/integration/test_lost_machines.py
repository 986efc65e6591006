"""Two machines that share nothing but `shared_dir`, one of which is lost in every stage.

Each is a pod of the loopback cluster with folders of its own. What they come to is, bit for bit,
what two processes of one machine come to that nothing disturbed.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from loopback.pods import Pod
from loopback.records import Execution

from siqvl.recipe import Recipe, Stage
from siqvl.tracking.runs import client
from siqvl.training.stage import train_stage

pytestmark = pytest.mark.integration

STEPS, SAVING = 24, 4
SECONDS = 300
#: Stage -> the worker that is lost; the first is where they meet.
VICTIMS = {
    Stage.PROJECTOR_ALIGNMENT: 1,
    Stage.VQA_SFT: 0,
    Stage.COT_SFT: 1,
    Stage.DPO: 0,
}


@dataclass
class Loss:
    """Takes a worker away, by SIGKILL, once the stage has a state in the shared folder."""

    shared: Path
    victim: int
    kept: list[str] = field(default_factory=list)

    def __call__(self, pod: Pod) -> None:
        end = time.monotonic() + SECONDS
        while pod.attempt == 0 and pod.index == self.victim and time.monotonic() < end:
            states = list(self.shared.glob("siqvl/*/*/checkpoints/.*/attempt-*/checkpoint-*"))
            if states:
                self.kept += [state.name for state in states]
                pod.kill()
                return
            if pod.exit_code is not None:
                return
            time.sleep(0.002)


def two_machines(content: dict, shared: Path) -> None:
    """Everything as a recipe has it by default, at a few steps."""
    content["name"] = "machines"
    content["distributed"] = {"enabled": True, "nodes": 2, "shared_dir": str(shared)}
    content["features_batch_size"] = 4
    for stage in content["stages"].values():
        stage |= {"max_steps": STEPS, "saving_steps": SAVING, "batch_size": 2}
        stage["cached_features"] = True
    content["tracking"]["patience_seconds"] = 600


@pytest.fixture
def undisturbed(remote, trained, tmp_path: Path, quick_children: None) -> Callable[[Stage], Path]:
    """A stage on one machine, by as many processes."""

    def train(stage: Stage) -> Path:
        content = remote.recipe.model_dump(mode="json")
        two_machines(content, tmp_path)
        content["distributed"] = {"enabled": True, "processes": 2}
        content |= {"output_dir": str(tmp_path / "outputs")}
        content["tracking"]["uri"] = remote.tracking
        content["model"] = trained.recipe.model.model_dump(mode="json")
        out = tmp_path / "undisturbed"
        train_stage(
            stage,
            Recipe.model_validate(content),
            data=trained.data(stage),
            checkpoint=trained.parent(stage),
            output=out,
        )
        return out

    return train


@pytest.fixture
def run(remote, trained, tmp_path: Path) -> Iterator[Callable[..., Execution]]:
    """A stage on two machines of the cluster, something of which is lost."""

    def start(stage: Stage, on_pod: Callable[[Pod], None] | None = None) -> Execution:
        recipe = remote.write("machines.yaml", lambda content: two_machines(content, tmp_path))
        parent = trained.parent(stage)
        inputs = ["--stage", stage.value, "--data", stored(remote, trained.data(stage))]
        inputs += ["--checkpoint", stored(remote, parent)] if parent else []
        remote.cluster.on_pod(on_pod)
        return remote.run(
            "tasks/elastic_training.py", "elastic_training", *inputs, "--recipe", recipe
        )

    yield start
    remote.cluster.on_pod(None)


def stored(remote, folder: Path) -> str:
    """The address of a folder, put into the cluster's store as it is."""
    store = remote.cluster.store
    address = store.address(f"made/{folder.parent.name}/{folder.name}")
    for file in folder.rglob("*"):
        if file.is_file():
            store.put(f"{address}/{file.relative_to(folder)}", file.read_bytes())
    return str(address)


def weights(remote, execution: Execution) -> bytes:
    address = execution.outputs.literals["o0"].scalar.blob.uri
    return remote.cluster.store.get(f"{address.rstrip('/')}/model.safetensors")


def runs_of(remote, execution: Execution) -> dict[str, str]:
    """How the runs of an execution ended, by its attempts."""
    store = client(remote.tracking)
    everywhere = [one.experiment_id for one in store.search_experiments()]
    found = store.search_runs(everywhere, f"tags.`flyte.execution` LIKE '%/{execution.name}'")
    return {run.data.tags["flyte.attempt"]: run.info.status for run in found}


@pytest.mark.parametrize("stage", VICTIMS)
def test_a_lost_machine_changes_nothing(
    remote,
    tmp_path: Path,
    run: Callable[..., Execution],
    undisturbed: Callable[[Stage], Path],
    stage: Stage,
) -> None:
    loss = Loss(tmp_path, VICTIMS[stage])
    done = run(stage, loss)
    assert done.succeeded, done.error
    assert loss.kept
    (node,) = [node for node in done.nodes if node.task_name]
    first, second = node.attempts
    assert first.error is not None
    assert first.error.code == "DownstreamSystemError"
    assert "is failed because 1 Worker replica(s) failed" in first.error.message
    assert len(first.pods) == len(second.pods) == 2
    logs = [[pod.printed() for pod in attempt.pods] for attempt in (first, second)]
    assert not any("continuing from" in log for log in logs[0])
    assert any("continuing from" in log for log in logs[1])
    reference = undisturbed(stage)
    assert weights(remote, done) == (reference / "model.safetensors").read_bytes()
    # both machines' parts are there once, and the second attempt had nothing to compute
    shards = list((tmp_path / "features").rglob("*.safetensors"))
    written = 4 if stage is Stage.DPO else 2  # features, and the reference's log-probabilities
    assert len(shards) == written
    assert not list(tmp_path.glob("siqvl/*/*/checkpoints/.*"))  # nothing is left of the states
    ends = runs_of(remote, done)
    assert ends["1"] == "FINISHED"
    assert ends["0"] in {"KILLED", "FAILED"}


def test_machines_without_a_shared_folder_are_told_before_anything_is_trained(
    remote, trained, tmp_path: Path
) -> None:
    """As where no volume is mounted there: each pod has a folder of that name to itself."""

    def change(content: dict) -> None:
        two_machines(content, Path("not-mounted"))  # below the folder that a pod begins in

    stage = Stage.PROJECTOR_ALIGNMENT
    failed = remote.run(
        *("tasks/elastic_training.py", "elastic_training", "--stage", stage.value),
        *(
            "--data",
            stored(remote, trained.data(stage)),
            "--recipe",
            remote.write("alone.yaml", change),
        ),
        code=None,
    )
    assert failed.state == "FAILED"
    assert "distributed.shared_dir is not-mounted, but that is not one folder" in str(failed.error)
    assert "training process 1 does not see what process 0 wrote there" in str(failed.error)
    (node,) = [node for node in failed.nodes if node.task_name]
    assert len(node.attempts) == 1  # nothing would be other the next time
    assert runs_of(remote, failed) == {"0": "FAILED"}
