"""What a recipe may say about pods, by the rules of Kubernetes' API server."""

from pathlib import Path
from typing import Any

import pytest
import yaml

from siqvl.errors import UserError
from siqvl.recipe import Recipe
from siqvl.recipe.cluster.pod import PodSettings, Toleration, bytes_of, quantity_of
from siqvl.recipe.compute import Request

TINY = Path(__file__).parents[2] / "recipes" / "tiny.yaml"


def training(**settings: Any) -> Request:
    content = yaml.safe_load(TINY.read_text())
    content["compute"] = {"training": settings}
    return Recipe.model_validate(content).compute.training


@pytest.mark.parametrize(
    "settings",
    [
        {"node_selector": {"cloud.google.com/gke-accelerator": "nvidia-l4", "pool": ""}},
        {"node_selector": {"a" * 63: "b" * 63, "x." * 100 + "org/" + "a" * 63: "A_b-c.9"}},
        {"labels": {"team": "vision", "cost.example.org/center": "R_2.1"}},
        {"annotations": {"cluster-autoscaler.kubernetes.io/safe-to-evict": "false, of course"}},
        {"service_account": "trainer.of-vision", "priority_class": "high-1"},
        {"image_pull_secrets": ["registry", "other.registry"], "pod_template_name": "gpu-pods"},
        {"environment": {"NCCL_DEBUG": "WARN", "http.proxy-of_us": "", "_": "x"}},
        {"environment": {"HF_ENDPOINT": "https://hub.example.org/a@b"}},
        {"extended_resources": {"rdma/hca_shared_devices_a": 1, "nvidia.com/mig-1g.5gb": 2}},
        {"tolerations": [{"operator": "Exists"}]},
        {"tolerations": [{"key": "spot", "value": "true", "effect": "NoSchedule"}]},
        {
            "tolerations": [
                {"key": "a/b", "operator": "Exists", "effect": "NoExecute", "seconds": 0}
            ]
        },
        {"node_affinity": [{"key": "nvidia.com/gpu.product", "values": ["A100", "H100"]}]},
        {
            "node_affinity": [
                {"key": "nvidia.com/gpu.memory", "operator": "Gt", "values": ["79000"]}
            ]
        },
        {"node_affinity": [{"key": "spot", "operator": "DoesNotExist"}]},
        {"gpus": 1, "gpu_type": "NVIDIA-A100-SXM4-80GB", "gpu_label": "nvidia.com/gpu.product"},
    ],
)
def test_what_kubernetes_takes_is_taken(settings: dict[str, Any]) -> None:
    found = training(**settings).model_dump(mode="json", exclude_defaults=True)
    for key, value in settings.items():
        if key in ("tolerations", "node_affinity"):
            pairs = zip(found[key], value, strict=True)
            assert all(one.items() >= given.items() for one, given in pairs)
        else:
            assert found[key] == value


#: Settings, the key that is named, and what is said of it.
WRONG: list[tuple[dict[str, Any], str, str]] = [
    ({"node_selector": {"a b": "c"}}, "node_selector.a b", "'a b' is no key of a Kubernetes label"),
    ({"node_selector": {"-a": "c"}}, "node_selector.-a", "no key of a Kubernetes label"),
    ({"node_selector": {"a" * 64: "c"}}, "node_selector.", "no key of a Kubernetes label"),
    ({"node_selector": {"Example.org/a": "c"}}, "node_selector.", "no key of a Kubernetes label"),
    ({"node_selector": {"a/b/c": "d"}}, "node_selector.", "no key of a Kubernetes label"),
    ({"node_selector": {"pool": "a b"}}, "node_selector.pool", "'a b' is no value of a"),
    ({"labels": {"pool": "b" * 64}}, "labels.pool", "at most 63 letters, digits"),
    ({"labels": {"pool": "-b"}}, "labels.pool", "the first and the last a letter or digit"),
    ({"service_account": "Trainer"}, "service_account", "'Trainer' is no name of a Kubernetes"),
    ({"service_account": "a_b"}, "service_account", "no name of a Kubernetes object"),
    ({"priority_class": "a" * 254}, "priority_class", "no name of a Kubernetes object"),
    ({"image_pull_secrets": ["a", "b/c"]}, "image_pull_secrets.1", "'b/c' is no name of a"),
    ({"image_pull_policy": "always"}, "image_pull_policy", "'Always', 'IfNotPresent' or 'Never'"),
    ({"pod_template_name": ""}, "pod_template_name", "no name of a Kubernetes object"),
    ({"environment": {"1A": "x"}}, "environment.1A", "'1A' is no name of an environment variable"),
    ({"environment": {"SIQVL_CODE": "x"}}, "environment.SIQVL_CODE", "and by no recipe"),
    ({"environment": {"FLYTE_ATTEMPT_NUMBER": "0"}}, "environment.", "set by Flyte or by SiQ-VL"),
    ({"environment": {"_FSEC_A_B": "0"}}, "environment.", "set by Flyte or by SiQ-VL"),
    ({"environment": {"URI": "https://me:hush@h"}}, "", "environment.URI has a password in it"),
    ({"extended_resources": {"gpu": 1}}, "extended_resources.", "no extended resource"),
    ({"extended_resources": {"kubernetes.io/x": 1}}, "extended_resources.", "no extended resource"),
    ({"extended_resources": {"nvidia.com/gpu": 1}}, "extended_resources.", "asked for by `gpus`"),
    ({"extended_resources": {"rdma/hca": 0}}, "", "has 0 of rdma/hca; ask for 1 or more"),
    ({"extended_resources": {"rdma/hca": "1Gi"}}, "extended_resources.rdma/hca", "valid integer"),
    ({"tolerations": [{}]}, "tolerations.0", "without a key has operator: Exists"),
    (
        {"tolerations": [{"key": "a", "operator": "Exists", "value": "b"}]},
        "tolerations.0",
        "operator is Exists, which compares no value",
    ),
    (
        {"tolerations": [{"key": "a", "effect": "NoSchedule", "seconds": 3}]},
        "tolerations.0",
        "seconds are counted with effect: NoExecute alone",
    ),
    ({"tolerations": [{"key": "a", "effect": "noschedule"}]}, "tolerations.0.effect", "NoSchedule"),
    ({"tolerations": [{"key": "a", "efect": "NoSchedule"}]}, "tolerations.0.efect", "`effect`?"),
    ({"node_affinity": [{"key": "a"}]}, "node_affinity.0", "operator In needs `values`"),
    (
        {"node_affinity": [{"key": "a", "operator": "Exists", "values": ["b"]}]},
        "node_affinity.0",
        "operator Exists has no `values`",
    ),
    (
        {"node_affinity": [{"key": "a", "operator": "Gt", "values": ["b"]}]},
        "node_affinity.0",
        "operator Gt compares with one whole number",
    ),
    ({"gpus": 1, "gpu_label": "a"}, "", "gpu_label is a, but gpu_type is null"),
    ({"gpus": 1, "gpu_type": "A 100"}, "gpu_type", "'A 100' is no value of a Kubernetes label"),
]


@pytest.mark.parametrize(("settings", "key", "message"), WRONG)
def test_a_slip_is_one_sentence_that_names_the_key(
    settings: dict[str, Any], key: str, message: str
) -> None:
    with pytest.raises(UserError) as caught:
        training(**settings)
    said = caught.value.message
    assert said.startswith("recipe: ")
    assert "\n" not in said
    assert f"`compute.training{'.' if key else ''}{key}" in said
    assert message in said
    assert "hush" not in said


def test_a_recipe_that_says_nothing_of_pods_is_stored_as_before() -> None:
    """So that what goes by its hash, such as a killed pipeline, goes on."""
    later = set(PodSettings.LATER)
    assert later <= set(Request.model_fields)
    assert not later & set(Request().model_dump(mode="json"))
    tolerant = Request(tolerations=[Toleration(operator="Exists")])
    assert later & set(tolerant.model_dump(mode="json")) == {"tolerations"}


@pytest.mark.parametrize(
    ("quantity", "count"),
    [("512", 512), ("64k", 64_000), ("64Ki", 65_536), ("2T", 2 * 10**12), ("12Gi", 12 * 2**30)],
)
def test_quantities_are_bytes(quantity: str, count: int) -> None:
    assert bytes_of(quantity) == count


@pytest.mark.parametrize(
    ("count", "text"),
    [(2**30, "1Gi"), (3 * 2**29, "1.5Gi"), (200 * 2**20, "200Mi"), (5, "5"), (10**9, "953.7Mi")],
)
def test_bytes_are_said_as_people_read_them(count: int, text: str) -> None:
    assert quantity_of(count) == text
