"""The pods of tasks as Flyte is told of them, and versions that tell what was asked apart."""

import json
import sys
from collections.abc import Iterator
from typing import Any

import pytest
from flyteidl.core import tasks_pb2
from flytekit import task
from flytekit.remote import FlyteRemote
from flytekit.tools.translator import get_serializable
from google.protobuf import json_format
from kubernetes.client import ApiClient

from siqvl.recipe import Recipe
from siqvl.recipe.compute import Kind, Request
from tasks import resources
from tasks.contracts import TINY
from tasks.pod_template import TaskPod, plan_pods
from tasks.resources import HANDED_ON, policy
from tests.workflows.test_registration import SETTINGS

EVERYTHING: dict[str, Any] = {
    "cpus": 8,
    "memory": "64Gi",
    "disk": "200Gi",
    "gpus": 1,
    "gpu_type": "NVIDIA-H100-80GB-HBM3",
    "gpu_label": "nvidia.com/gpu.product",
    "extended_resources": {"rdma/hca_shared": 1},
    "node_selector": {"pool": "training"},
    "node_affinity": [{"key": "zone", "operator": "NotIn", "values": ["a", "b"]}],
    "tolerations": [
        {"key": "spot", "operator": "Exists", "effect": "NoExecute", "seconds": 60},
        {"key": "team", "value": "vision"},
    ],
    "service_account": "trainer",
    "image_pull_secrets": ["registry"],
    "image_pull_policy": "Always",
    "priority_class": "high",
    "pod_template_name": "gpu-pods",
    "labels": {"team": "vision"},
    "annotations": {"example.org/note": "of a test"},
    "environment": {"NCCL_DEBUG": "WARN"},
}


@pytest.fixture(autouse=True)
def _registered_on_a_plain_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in (*HANDED_ON, "SIQVL_RECIPE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(sys, "argv", ["pyflyte"])


@pytest.fixture
def asking(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Register with another request for training."""

    def register(**training: Any) -> Recipe:
        compute = TINY.compute.model_copy(update={"training": Request.model_validate(training)})
        recipe = TINY.model_copy(update={"compute": compute})
        monkeypatch.setattr(resources, "registered_recipe", lambda: recipe)
        return recipe

    return register


def declared(kind: Kind = Kind.TRAINING) -> Any:
    """A task as SiQ-VL declares one."""

    @task(**policy(kind))
    def trained(steps: int) -> int:
        return steps

    return trained


def template(entity: Any) -> tasks_pb2.TaskTemplate:
    """What FlyteAdmin gets."""
    return get_serializable({}, SETTINGS, entity).template.to_flyte_idl()


def spec_of(found: tasks_pb2.TaskTemplate) -> dict[str, Any]:
    return json_format.MessageToDict(found.k8s_pod.pod_spec)


def test_a_pod_is_what_the_recipe_says(asking: Any) -> None:
    asking(**EVERYTHING)
    found = template(declared())
    assert found.config["primary_container_name"] == "training"
    assert found.metadata.pod_template_name == "gpu-pods"
    assert dict(found.k8s_pod.metadata.labels) == {"team": "vision"}
    assert dict(found.k8s_pod.metadata.annotations) == {"example.org/note": "of a test"}
    assert not found.extended_resources.HasField("gpu_accelerator")  # its label is the recipe's
    spec = spec_of(found)
    (container,) = spec.pop("containers")
    terms = [
        {
            "matchExpressions": [
                {"key": "zone", "operator": "NotIn", "values": ["a", "b"]},
                {
                    "key": "nvidia.com/gpu.product",
                    "operator": "In",
                    "values": ["NVIDIA-H100-80GB-HBM3"],
                },
            ]
        }
    ]
    required = {"requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": terms}}
    assert spec == {
        "affinity": {"nodeAffinity": required},
        "nodeSelector": {"pool": "training"},
        "tolerations": [
            {"key": "spot", "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": 60},
            {"key": "team", "operator": "Equal", "value": "vision"},
            {"key": "nvidia.com/gpu", "operator": "Exists", "effect": "NoSchedule"},
            {
                "key": "nvidia.com/gpu.product",
                "operator": "Equal",
                "value": "NVIDIA-H100-80GB-HBM3",
                "effect": "NoSchedule",
            },
        ],
        "serviceAccountName": "trainer",
        "imagePullSecrets": [{"name": "registry"}],
        "priorityClassName": "high",
    }
    asked = {"cpu": "8", "memory": "64Gi", "gpu": "1", "ephemeral-storage": "200Gi"}
    everything = asked | {"rdma/hca_shared": "1"}
    assert container["resources"] == {"requests": everything, "limits": everything}
    assert container["imagePullPolicy"] == "Always"
    assert container["image"] == "registry/siqvl:gpu"
    assert container["args"][0] == "pyflyte-execute"
    variables = {one["name"]: one["value"] for one in container["env"]}
    assert json.loads(variables.pop("SIQVL_ASKED")) == {"cpus": 8, "memory": "64Gi", "gpus": 1}
    assert variables == {
        "SIQVL_KIND": "training",
        "SIQVL_CODE": resources.code(),
        "NCCL_DEBUG": "WARN",
    }


def test_kubernetes_client_reads_it_back(asking: Any) -> None:
    """Every key is one of a pod's, of the type that Kubernetes gives it."""
    asking(**EVERYTHING)
    # as Go reads a Struct, whose whole numbers are no fractions
    spec = json.loads(
        json.dumps(spec_of(template(declared()))), parse_float=lambda text: int(float(text))
    )
    read = ApiClient().deserialize(json.dumps(spec), "V1PodSpec", "application/json")
    again = json.loads(json.dumps(ApiClient().sanitize_for_serialization(read)))
    assert again == spec


def test_a_plain_recipe_has_plain_pods(asking: Any) -> None:
    asking(cpus=2, memory="1Gi")
    spec = spec_of(template(declared()))
    (container,) = spec.pop("containers")
    assert spec == {}
    asked = {"cpu": "2", "memory": "1Gi"}
    assert container["resources"] == {"requests": asked, "limits": asked}
    assert "imagePullPolicy" not in container
    # Flyte sets this in pods that it makes itself, and not in a template
    assert container["terminationMessagePolicy"] == "FallbackToLogsOnError"


def test_a_gpu_of_any_type_puts_up_with_the_taint_of_gpus(asking: Any) -> None:
    """Flyte adds a toleration where there is a type alone."""
    asking(gpus=1)
    taint = {"key": "nvidia.com/gpu", "operator": "Exists", "effect": "NoSchedule"}
    assert spec_of(template(declared())) == {
        "containers": spec_of(template(declared()))["containers"],
        "tolerations": [taint],
    }


def test_a_type_without_a_label_is_left_to_flyte(asking: Any) -> None:
    asking(gpus=1, gpu_type="nvidia-tesla-a100")
    found = template(declared())
    assert found.extended_resources.gpu_accelerator.device == "nvidia-tesla-a100"
    assert "affinity" not in spec_of(found)


def test_who_does_not_register_makes_no_pod(monkeypatch: pytest.MonkeyPatch) -> None:
    """The client of Kubernetes takes half a second to import, in every pod."""
    monkeypatch.setitem(sys.modules, "kubernetes.client", None)
    assert declared().pod_template.labels is None
    assert len(declared().pod_template.version_hash()) == 64


# Versions


def version(entity: Any) -> str:
    """The version that `pyflyte run --remote` gives a task of the same code."""
    names = FlyteRemote._get_pod_template_hash(entity)
    return FlyteRemote._version_from_hash(b"code", SETTINGS, None, *names)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("SIQVL_SECRETS", "HF_TOKEN"),
        ("MLFLOW_TRACKING_URI", "https://mlflow.example.org"),
        ("OMP_NUM_THREADS", "3"),
        ("SIQVL_GIT_SHA", "0123abc"),
    ],
)
def test_what_is_handed_on_to_pods_is_in_the_version(name: str, value: str, monkeypatch) -> None:
    before = version(declared())
    assert version(declared()) == before
    monkeypatch.setenv(name, value)
    assert version(declared()) != before


@pytest.mark.parametrize(
    ("key", "value"),
    [*EVERYTHING.items(), ("retries", 3), ("timeout_minutes", 5), ("shared_memory", "1Gi")],
)
def test_whatever_is_asked_is_in_the_version(key: str, value: object, asking: Any) -> None:
    some = {"gpus": 2, "gpu_type": "any"}
    asking(**some)
    before, of_data = version(declared()), version(declared(Kind.DATA))
    asking(**(some | {key: value}))
    assert version(declared()) != before
    assert version(declared(Kind.DATA)) == of_data  # another kind is what it was


def test_what_asks_the_same_is_not_registered_anew(asking: Any, monkeypatch) -> None:
    """Also of another recipe."""
    recipe = asking(cpus=2)
    before = template(declared()), version(declared())
    other = recipe.model_copy(update={"seed": 5, "name": "another"})
    monkeypatch.setattr(resources, "registered_recipe", lambda: other)
    assert (template(declared()), version(declared())) == before


def test_register_tells_recipes_apart(monkeypatch: pytest.MonkeyPatch) -> None:
    """Their launch plan has the recipe as an input."""
    monkeypatch.setattr(sys, "argv", ["pyflyte", "register", "workflows"])
    monkeypatch.setenv("SIQVL_GIT_SHA", "0123abc")
    before = version(declared())
    other = TINY.model_copy(update={"seed": 5})
    monkeypatch.setattr(resources, "registered_recipe", lambda: other)
    assert version(declared()) != before


# Planning


@pytest.fixture
def planned() -> Iterator[None]:
    yield
    plan_pods(TINY)


@pytest.mark.usefixtures("planned")
def test_who_plans_a_pipeline_makes_the_pods_of_its_recipe(asking: Any) -> None:
    entity, of_data = declared(), declared(Kind.DATA)
    recipe = asking(**EVERYTHING)
    assert spec_of(template(entity)).keys() == {"containers"}
    plan_pods(recipe)
    assert isinstance(entity.pod_template, TaskPod)
    found = template(entity)
    assert spec_of(found)["serviceAccountName"] == "trainer"
    assert found.metadata.pod_template_name == "gpu-pods"
    assert spec_of(template(of_data)).keys() == {"containers"}
    plan_pods(TINY)
    assert spec_of(template(entity)).keys() == {"containers"}
    assert template(entity).metadata.pod_template_name == ""
