"""What a cluster would be told, compiled here."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from flytekit.configuration import Image, ImageConfig, SerializationSettings
from flytekit.core.context_manager import ExecutionState, FlyteContextManager
from flytekit.models.core.workflow import Node
from flytekit.models.dynamic_job import DynamicJobSpec
from flytekit.tools.translator import get_serializable
from flytekit.types.directory import FlyteDirectory

from siqvl.errors import UserError
from siqvl.recipe import Control, Recipe
from siqvl.recipe.compute import Kind
from tasks import resources
from tasks.contracts import ALONE, TINY, Preparation
from tasks.data_prep import data_prep
from tasks.dpo import dpo
from tasks.evaluation import evaluation
from tasks.pipeline_run import open_run
from tasks.pod_template import plan_pods
from workflows.evaluated import evaluated
from workflows.full_pipeline import all_stages, full_pipeline
from workflows.prepared_data import prepared_data
from workflows.scheduled import scheduled

RECIPES = Path(__file__).parents[2] / "recipes"
SETTINGS = SerializationSettings(
    image_config=ImageConfig(
        default_image=Image("default", "registry/default", "1"),
        images=[
            Image("data", "registry/siqvl", "cpu"),
            Image("training", "registry/siqvl", "gpu"),
            Image("evaluation", "registry/siqvl", "eval"),
        ],
    ),
    project="siqvl",
    domain="development",
    version="v1",
)


def changed(**sections: dict[str, Any]) -> Recipe:
    """The tiny recipe with some keys of its sections changed."""
    content = TINY.model_dump(mode="json")
    for name, values in sections.items():
        content[name] |= values
    return Recipe.model_validate(content)


def plan(recipe: Recipe) -> DynamicJobSpec:
    """The pipeline of a recipe as a pod compiles it."""
    return compiled(all_stages, recipe=recipe)


def compiled(dynamic: Any, **inputs: Any) -> DynamicJobSpec:
    """What a dynamic task plans."""
    dynamic._wf = None  # flytekit compiles once a process, which is once a pod
    context = FlyteContextManager.current_context().with_serialization_settings(SETTINGS)
    with FlyteContextManager.with_context(context) as outer:
        state = outer.execution_state.with_params(mode=ExecutionState.Mode.TASK_EXECUTION)
        with FlyteContextManager.with_context(outer.with_execution_state(state)) as inner:
            return dynamic.compile_into_workflow(inner, dynamic.task_function, **inputs)


def nodes(recipe: Recipe) -> dict[str, list[Node]]:
    """Task -> its nodes in the plan, in order."""
    found: dict[str, list[Node]] = {}
    for node in plan(recipe).nodes:
        if node.task_node is not None:
            name = node.task_node.reference_id.name.rpartition(".")[2]
        else:
            name = "map"
        found.setdefault(name, []).append(node)
    return found


def requests(node: Node) -> dict[str, str]:
    names = {1: "cpu", 2: "gpu", 3: "mem", 5: "disk"}
    asked = node.task_node.overrides.resources.requests
    return {names[entry.name]: entry.value for entry in asked}


def test_register_compiles_every_entity_without_a_cluster(pyflyte, checkout: Path) -> None:
    arguments = ["register", "--copy", "none", "--dry-run", "-p", "siqvl", "-d", "development"]
    printed = pyflyte(
        "-c", "flyte.config", *arguments, "--version", "v1", "workflows", folder=checkout
    )
    assert "Workflow: workflows.full_pipeline.full_pipeline" in printed
    for task in ("projector_alignment", "vqa_sft", "cot_sft", "dpo", "evaluation", "data_prep"):
        assert f"Task: tasks.{task}.{task} " in printed
    for task in ("tasks.data_prep.prepare_shard", "tasks.data_prep.merge_shards"):
        assert f"Task: {task} " in printed
    for task in ("preference_pairs", "pipeline_report", "promotion"):
        assert f"Task: tasks.{task}.{task} " in printed
    assert "Task: tasks.pipeline_failure.close_run " in printed
    assert "Workflow: workflows.sweep.sweep" in printed
    for dynamic in ("full_pipeline.all_stages", "prepared_data.prepared_data", "sweep.all_points"):
        assert f"Task: workflows.{dynamic} " in printed
    assert "Launch Plan: scheduled" in printed


@pytest.mark.parametrize(
    ("task", "image"), [(data_prep, "cpu"), (dpo, "gpu"), (evaluation, "eval")]
)
def test_tasks_run_in_images_named_by_their_kind(task, image: str) -> None:
    (container,) = get_serializable({}, SETTINGS, task).template.k8s_pod.pod_spec["containers"]
    assert container["image"] == f"registry/siqvl:{image}"


def test_the_tiny_recipe_asks_for_no_gpu() -> None:
    found = nodes(TINY)
    assert requests(found["dpo"][0]) == {"cpu": "2", "mem": "2Gi"}
    assert requests(found["data_prep"][0]) == {"cpu": "1", "mem": "1Gi"}
    assert found["dpo"][0].task_node.overrides.extended_resources is None


def test_each_task_asks_for_what_the_recipe_of_the_run_says() -> None:
    training = {
        "gpus": 1,
        "gpu_type": "nvidia-tesla-a100",
        "cpus": 8,
        "memory": "64Gi",
        "disk": "200Gi",
        "shared_memory": "16Gi",
        "retries": 5,
        "interruptible": True,
        "timeout_minutes": 90,
    }
    found = nodes(changed(compute={"training": training}))
    for task in ("projector_alignment", "vqa_sft", "cot_sft", "dpo"):
        for node in found[task]:
            assert requests(node) == {"cpu": "8", "gpu": "1", "mem": "64Gi", "disk": "200Gi"}
            asked = node.task_node.overrides.extended_resources
            assert asked.gpu_accelerator.device == "nvidia-tesla-a100"
            assert asked.shared_memory.size_limit == "16Gi"
            assert node.metadata.retries.retries == 5
            assert node.metadata.interruptible
            assert node.metadata.timeout == timedelta(0)
    assert requests(found["evaluation"][0]) == {"cpu": "2", "mem": "2Gi"}


@pytest.fixture
def planning_pod(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """This process, as the pod that plans a pipeline."""
    monkeypatch.setenv("FLYTE_INTERNAL_EXECUTION_ID", "abc")
    monkeypatch.setattr(resources, "_planned", [])
    monkeypatch.setattr("tasks.given.check_given", lambda: None)
    yield
    plan_pods(TINY)


@pytest.mark.usefixtures("planning_pod")
@pytest.mark.parametrize("shards", [1, 3])
def test_every_pod_of_a_pipeline_is_as_its_recipe_says(shards: int) -> None:
    """Those of tasks that plan again and of elements of a map among them."""
    of_kind = {
        "data": {"cpus": 3, "memory": "3Gi", "service_account": "reader"},
        "training": {"cpus": 5, "memory": "5Gi", "service_account": "trainer"},
        "evaluation": {"cpus": 7, "memory": "7Gi", "service_account": "answerer"},
    }
    for kind in of_kind.values():
        kind["tolerations"] = [{"key": "spot", "operator": "Exists"}]
    several = {"data": {"shards": shards}, "evaluation": {"shards": shards}}
    spec = plan(changed(compute=of_kind, **several))
    templates = {str(one.id): one for one in spec.tasks}
    accounts = {"3": "reader", "5": "trainer", "7": "answerer"}
    seen = set()
    for node in spec.nodes:
        task_node = node.task_node
        found = templates[str(task_node.reference_id)]
        pod, asked = found.k8s_pod.pod_spec, requests(node)
        assert pod["serviceAccountName"] == accounts[asked["cpu"]], found.id.name
        assert pod["tolerations"] == [{"key": "spot", "operator": "Exists"}]
        (container,) = pod["containers"]
        variables = {one["name"]: one["value"] for one in container["env"]}
        told = json.loads(variables["SIQVL_ASKED"])  # what the pod compares with what it has
        assert {"cpu": str(told["cpus"]), "mem": told["memory"]} == asked
        seen.add((found.id.name.rpartition(".")[2], asked["cpu"]))
    assert {("open_run", "3"), ("promotion", "3"), ("dpo", "5")} <= seen
    assert (("evaluated", "3") if shards > 1 else ("evaluation", "7")) in seen


@pytest.mark.usefixtures("planning_pod")
def test_elements_of_a_map_have_the_pods_of_the_recipe() -> None:
    content = changed(compute={"data": {"service_account": "reader", "cpus": 3}})
    recipe = Recipe.model_validate(content.model_dump(mode="json") | {"data": {"shards": 2}})
    inputs = {"stage": Preparation.VQA_SFT, "recipe": recipe, "run": ALONE, "benchmarks": None}
    spec = compiled(prepared_data, **inputs)
    assert len(spec.tasks) == 2
    for one in spec.tasks:
        assert one.k8s_pod.pod_spec["serviceAccountName"] == "reader"
    (mapped,) = [node for node in spec.nodes if node.array_node is not None]
    asked = requests(mapped.array_node.node)
    assert asked == {"cpu": "3", "mem": "4Gi"}


def test_the_plan_is_small_enough_to_be_read() -> None:
    """FlytePropeller reads 2 MB by default, `storage.limits.maxDownloadMBs`."""
    assert len(plan(TINY).to_flyte_idl().SerializeToString()) < 200_000


def test_steps_that_a_recipe_does_not_ask_for_are_no_nodes() -> None:
    with_all = nodes(TINY)
    assert len(with_all["projector_alignment"]) == 2  # the stage, and its control
    assert len(with_all["dpo"]) == 2
    assert len(with_all["preference_pairs"]) == 1
    content = TINY.model_dump(mode="json")
    content["stages"]["dpo"]["sampled"] = None
    content["evaluation"] |= dict.fromkeys(Control, False)
    content["evaluation"] |= {"gates": [], "champion_benchmark": None}
    content["evaluation"]["benchmarks"] = content["evaluation"]["benchmarks"][:1]
    plain = nodes(Recipe.model_validate(content))
    assert len(plain["projector_alignment"]) == len(plain["dpo"]) == 1
    assert "preference_pairs" not in plain
    assert len(plain["evaluation"]) == 4


def test_shards_are_mapped_over() -> None:
    content = TINY.model_dump(mode="json")
    content["data"]["shards"] = 3
    content["evaluation"]["shards"] = 2
    found = nodes(Recipe.model_validate(content))
    assert len(found["prepared_data"]) == 4
    assert len(found["evaluated"]) == 6  # four stages, two controls
    assert len(found["data_prep"]) == 1  # the benchmarks


def test_no_retries_in_a_recipe_are_none_whatever_task_was_planned(monkeypatch) -> None:
    """Flyte takes those of the task for an override of 0, and for its elements in a map."""
    content = TINY.model_dump(mode="json")
    for kind in Kind:
        content["compute"].setdefault(kind.value, {})["retries"] = 0
    for node in plan(Recipe.model_validate(content)).nodes:
        if node.task_node is not None:
            assert node.metadata.retries.retries == 0
    program = "from tasks import data_prep, dpo, evaluation; " + (
        "print([one.metadata.retries for one in (data_prep.data_prep, dpo.dpo, "
        "evaluation.evaluation, evaluation.evaluate_shard, evaluation.merge_evaluation)])"
    )
    done = subprocess.run(
        [sys.executable, "-c", program],
        cwd=RECIPES.parent,
        env=os.environ | {"FLYTE_INTERNAL_EXECUTION_ID": "abc"},  # as in the pod that plans
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.strip() == "[0, 0, 0, 0, 0]"


def test_elements_of_a_map_are_tried_as_the_recipe_says(tmp_path: Path) -> None:
    """flytekit gives the overrides of a map to its elements."""
    content = TINY.model_dump(mode="json")
    content["evaluation"]["shards"] = 2
    content["compute"]["evaluation"] |= {"retries": 5, "interruptible": True}
    recipe = Recipe.model_validate(content)
    node = next(node for node in shards_of(recipe, tmp_path) if node.array_node is not None)
    element = node.array_node.node.metadata
    assert (element.retries.retries, element.interruptible) == (5, True)
    assert element.timeout == timedelta(0)


def shards_of(recipe: Recipe, folder: Path) -> list[Node]:
    """The nodes of an evaluation in shards, as a pod plans them."""
    evaluated._wf = None
    context = FlyteContextManager.current_context().with_serialization_settings(SETTINGS)
    with FlyteContextManager.with_context(context) as outer:
        state = outer.execution_state.with_params(mode=ExecutionState.Mode.TASK_EXECUTION)
        with FlyteContextManager.with_context(outer.with_execution_state(state)) as inner:
            inputs = {
                "checkpoint": FlyteDirectory(str(folder)),
                "data": FlyteDirectory(str(folder)),
                "run": ALONE,
            }
            spec = evaluated.compile_into_workflow(
                inner, evaluated.task_function, recipe=recipe, **inputs
            )
    return spec.nodes


def test_results_are_cached_by_content_and_runs_are_not() -> None:
    for task in (data_prep, dpo, evaluation):
        metadata = get_serializable({}, SETTINGS, task).template.metadata
        assert metadata.discoverable
        assert metadata.discovery_version
        assert metadata.cache_ignore_input_vars == ("run",)
    assert not get_serializable({}, SETTINGS, open_run).template.metadata.discoverable


def test_the_failure_node_closes_the_run() -> None:
    entities: dict = {}
    get_serializable(entities, SETTINGS, full_pipeline)
    spec = entities[full_pipeline]
    assert spec.template.failure_node.task_node.reference_id.name == (
        "tasks.pipeline_failure.close_run"
    )


def test_the_schedule_is_the_recipes() -> None:
    assert scheduled.schedule.cron_schedule.schedule == TINY.compute.schedule
    assert scheduled.parameters.parameters["recipe"].default is not None


def test_a_pod_without_a_tracking_server_refuses_to_start(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    monkeypatch.setenv("FLYTE_INTERNAL_EXECUTION_ID", "abc")
    with pytest.raises(UserError, match="MLFLOW_TRACKING_URI"):
        open_run(recipe=TINY)
    assert not list(tmp_path.iterdir())


def test_a_pod_with_other_code_than_was_registered_refuses_to_start(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://mlflow.example.org")
    monkeypatch.setenv("FLYTE_INTERNAL_EXECUTION_ID", "abc")
    monkeypatch.setenv("SIQVL_CODE", "another")
    with pytest.raises(UserError, match=r"other code than the checkout.*--copy all"):
        open_run(recipe=TINY)
