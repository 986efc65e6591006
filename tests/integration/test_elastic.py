"""A stage in several processes by Flyte's elastic plugin: what the library's own launch gives."""

import gc
import html
import os
import signal
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from flytekit import current_context
from flytekit.configuration import Image, ImageConfig, SerializationSettings
from flytekit.tools.translator import get_serializable

from siqvl.checkpoint import read_card, read_history
from siqvl.errors import UserError
from siqvl.recipe import Distributed, Recipe, Stage
from siqvl.tracking.runs import RunLog, client, start_run
from siqvl.training.stage import train_stage
from tasks.contracts import ALONE, TINY, Checkpoint, PipelineRun, PreparedData
from tasks.elastic_training import elastic_training
from tasks.tracked import tracked

STAGE = Stage.VQA_SFT
SECONDS = 240  # a process that nobody stops
IMAGES = [Image(kind, "registry/siqvl", "1") for kind in ("data", "training", "evaluation")]
SETTINGS = SerializationSettings(
    image_config=ImageConfig(default_image=IMAGES[0], images=IMAGES),
    project="siqvl",
    domain="development",
    version="v1",
)


@pytest.fixture(autouse=True)
def nothing_of_torch_is_left():
    """Elastic leaves its signal handlers and, until it is collected, its store to the caller."""
    kinds = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGQUIT)
    handlers = {kind: signal.getsignal(kind) for kind in kinds}
    yield
    gc.collect()
    for kind, handler in handlers.items():
        signal.signal(kind, handler)


@pytest.fixture
def recipe(trained, tmp_path: Path, small_recipe: Callable[..., Recipe], monkeypatch) -> Recipe:
    monkeypatch.chdir(tmp_path)  # MLflow's artifacts go to ./mlruns
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parents[2]))  # of the worker processes
    content = small_recipe(tmp_path).model_dump(mode="json")
    content["distributed"] = {"enabled": True, "processes": 2}
    content["stages"][STAGE.value] |= {"batch_size": 2, "max_steps": 3}
    return Recipe.model_validate(content)


def children(parent: RunLog) -> list:
    store = client(parent.uri)
    experiment = store.get_run(parent.run_id).info.experiment_id
    return store.search_runs([experiment], f"tags.`mlflow.parentRunId` = '{parent.run_id}'")


def elastic(trained, recipe: Recipe, run: PipelineRun, parent: Stage) -> Path:
    checkpoint = elastic_training(
        stage=STAGE,
        data=PreparedData(str(trained.data(STAGE))),
        checkpoint=Checkpoint(str(trained.checkpoint(parent))),
        recipe=recipe,
        run=run,
    )
    return Path(checkpoint.path)


@pytest.mark.integration
@pytest.mark.usefixtures("quick_children")
def test_it_trains_what_the_librarys_own_launch_trains(
    trained, recipe: Recipe, tmp_path: Path
) -> None:
    log = start_run(recipe, "parent")
    run = PipelineRun(name="now", run_id=log.run_id)
    out = elastic(trained, recipe, run, Stage.PROJECTOR_ALIGNMENT)
    assert out == tmp_path / "outputs" / recipe.name / "now" / "checkpoints" / STAGE.value

    own = tmp_path / "own"
    parent = trained.checkpoint(Stage.PROJECTOR_ALIGNMENT)
    train_stage(STAGE, recipe, data=trained.data(STAGE), checkpoint=parent, output=own)
    assert (out / "model.safetensors").read_bytes() == (own / "model.safetensors").read_bytes()
    losses = [[entry["loss"] for entry in read_history(each)] for each in (out, own)]
    assert losses[0] == losses[1]
    assert len(losses[0]) == 3
    # and that is what one process learns of batches twice as large
    content = recipe.model_dump(mode="json")
    content["distributed"] = {"enabled": False}
    content["stages"][STAGE.value] |= {"batch_size": 4}
    alone = tmp_path / "alone"
    train_stage(
        STAGE,
        Recipe.model_validate(content),
        data=trained.data(STAGE),
        checkpoint=parent,
        output=alone,
    )
    assert losses[0] == pytest.approx([one["loss"] for one in read_history(alone)], abs=2e-4)

    written = (out / "model.safetensors").stat().st_mtime_ns
    assert elastic(trained, recipe, run, Stage.PROJECTOR_ALIGNMENT) == out  # it is done
    assert (out / "model.safetensors").stat().st_mtime_ns == written
    (child,) = children(log)  # the first process alone tracks
    assert child.info.run_name == STAGE.value
    assert child.info.status == "FINISHED"
    curve = client(log.uri).get_metric_history(child.info.run_id, "train/loss")
    assert [point.step for point in curve] == [1, 2, 3]
    assert read_card(out).mlflow_run == child.info.run_id
    assert [path.name for path in out.parent.iterdir()] == [STAGE.value]
    # the first process wrote the page, which the deck of the task that started it shows
    page = (out.parents[1] / "training" / f"{STAGE}.html").read_text()
    assert "step 3 of 3" in page
    deck = [one for one in current_context().decks if one.name == "VQA SFT"][-1]
    assert page in html.unescape(deck.html)


@pytest.mark.integration
def test_what_a_process_has_to_say_is_one_line(trained, recipe: Recipe) -> None:
    log = start_run(recipe, "parent")
    with pytest.raises(UserError) as caught:
        elastic(trained, recipe, PipelineRun(run_id=log.run_id), Stage.COT_SFT)
    message = str(caught.value)
    assert "is of stage `cot_sft`, but this stage continues from `projector_alignment`" in message
    assert "Traceback" not in message
    assert message.strip().count("\n") <= 1  # flytekit names the task on a line of its own
    assert {child.info.status for child in children(log)} <= {"FAILED"}  # or none was opened yet


def open_and_wait(recipe: Recipe, marks: str) -> None:
    """The body of a stage: the first process opens its run, the second then fails."""
    mark = Path(marks) / "opened"
    if os.environ["RANK"] == "0":
        with tracked(recipe, STAGE.value, ALONE):
            mark.touch()
            time.sleep(SECONDS)
    while not mark.exists():
        time.sleep(0.05)
    raise UserError("the second process has no picture")


@pytest.mark.integration
def test_the_run_of_a_process_that_torch_stops_is_closed(
    trained, recipe: Recipe, tmp_path: Path, monkeypatch
) -> None:
    def body(stage, data, checkpoint, recipe, run) -> None:
        open_and_wait(recipe, str(tmp_path))

    monkeypatch.setattr(elastic_training, "_task_function", body)
    begin = time.monotonic()
    with pytest.raises(UserError, match=r"training process 1 failed: .*has no picture"):
        elastic(trained, recipe, ALONE, Stage.PROJECTOR_ALIGNMENT)
    assert time.monotonic() - begin < SECONDS
    store = client(recipe.tracking.uri or "")
    experiment = store.get_experiment_by_name(recipe.tracking.experiment)
    (run,) = store.search_runs([experiment.experiment_id])
    assert run.info.status == "FAILED"


def template(**distributed: object):
    task = elastic_training.shaped(Distributed.model_validate(distributed))
    return get_serializable({}, SETTINGS, task).template


def test_one_machine_is_a_plain_pod() -> None:
    found = template(enabled=True, processes=4)
    assert found.type == "python-task"
    assert not found.custom
    (container,) = found.k8s_pod.pod_spec["containers"]
    assert container["image"] == "registry/siqvl:1"


def test_several_machines_are_a_job_of_the_training_operator() -> None:
    found = template(enabled=True, processes=4, nodes=2, shared_dir="/shared")
    assert found.type == "pytorch"
    assert found.custom["workerReplicas"]["replicas"] == 2
    elastic_config = found.custom["elasticConfig"]
    assert elastic_config["minReplicas"] == elastic_config["maxReplicas"] == 2
    assert elastic_config["nprocPerNode"] == 4
    # those that are left when one is lost give their GPUs back
    assert found.custom["runPolicy"]["cleanPodPolicy"] == "CLEANPOD_POLICY_RUNNING"
    (container,) = found.k8s_pod.pod_spec["containers"]
    asks = TINY.compute.training
    assert container["resources"]["limits"] == {"cpu": str(asks.cpus), "memory": asks.memory}
    assert "volumes" not in found.k8s_pod.pod_spec  # shared memory is asked for otherwise


def test_each_call_is_shaped_by_its_own_recipe() -> None:
    template(enabled=True, processes=4, nodes=2, shared_dir="/shared")
    assert template(enabled=True, processes=2).type == "python-task"
    assert elastic_training.task_config.nproc_per_node == 2
    template(enabled=False, processes=4)
    assert elastic_training.task_config.nproc_per_node == 1
