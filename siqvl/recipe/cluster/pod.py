"""What a recipe may say about the pods of a task, by the rules of Kubernetes.

Names, labels, taints and quantities are checked as the API server of Kubernetes checks them
(https://kubernetes.io/docs/concepts/overview/working-with-objects/names/ and `.../labels/`), so
that a slip is told where it was typed and not by a task that never starts.
"""

from __future__ import annotations

import re
from typing import Annotated, ClassVar, Literal, Self

from pydantic import AfterValidator, Field, model_validator

from siqvl.recipe.address import has_password
from siqvl.recipe.section import Section

_SUBDOMAIN = r"[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*"
_LABEL = r"[A-Za-z0-9]([-A-Za-z0-9_.]*[A-Za-z0-9])?"
#: Variables that pods have from Flyte, and from who registers their tasks.
_OURS = re.compile(r"(SIQVL_|FLYTE_|_F).*")
GPU = "nvidia.com/gpu"


def _quantity(value: str) -> str:
    if not re.fullmatch(r"[1-9]\d*(k|[MGT]|[KMGT]i)?", value):
        raise ValueError(f"{value!r} is no Kubernetes quantity of bytes; write it like 16Gi")
    return value


def _object_name(value: str) -> str:
    if len(value) > 253 or not re.fullmatch(_SUBDOMAIN, value):
        raise ValueError(
            f"{value!r} is no name of a Kubernetes object: small letters, digits, `-` and `.`"
        )
    return value


def _is_label_key(key: str) -> bool:
    prefix, slash, name = key.rpartition("/")
    sound = not slash or (len(prefix) <= 253 and re.fullmatch(_SUBDOMAIN, prefix) is not None)
    return sound and len(name) <= 63 and re.fullmatch(_LABEL, name) is not None


def _label_key(key: str) -> str:
    if not _is_label_key(key):
        raise ValueError(
            f"{key!r} is no key of a Kubernetes label; write it like nvidia.com/gpu.product"
        )
    return key


def _label_value(value: str) -> str:
    if len(value) > 63 or (value and not re.fullmatch(_LABEL, value)):
        raise ValueError(
            f"{value!r} is no value of a Kubernetes label: at most 63 letters, digits, `-`, `_` "
            "and `.`, the first and the last a letter or digit"
        )
    return value


def _variable(name: str) -> str:
    if not re.fullmatch(r"[-._a-zA-Z][-._a-zA-Z0-9]*", name):
        raise ValueError(f"{name!r} is no name of an environment variable")
    if _OURS.fullmatch(name):
        raise ValueError(f"{name} is set by Flyte or by SiQ-VL, and by no recipe")
    return name


def _resource(name: str) -> str:
    native = "/" not in name or "kubernetes.io/" in name or name.startswith("requests.")
    if native or not _is_label_key(name):
        raise ValueError(
            f"{name!r} is no extended resource of Kubernetes; write it like rdma/hca_shared"
        )
    if name == GPU:
        raise ValueError(f"{GPU} is asked for by `gpus`")
    return name


#: Bytes as Kubernetes writes them.
Quantity = Annotated[str, AfterValidator(_quantity)]
#: The name of a service account, a secret, a pod template or a priority class.
ObjectName = Annotated[str, AfterValidator(_object_name)]
LabelKey = Annotated[str, AfterValidator(_label_key)]
LabelValue = Annotated[str, AfterValidator(_label_value)]


_BINARY = (("Ti", 2**40), ("Gi", 2**30), ("Mi", 2**20), ("Ki", 2**10))
_UNITS = {"": 1, "k": 10**3, "M": 10**6, "G": 10**9, "T": 10**12, **dict(_BINARY)}


def bytes_of(quantity: str) -> int:
    """Bytes of a quantity."""
    digits = quantity.rstrip("".join(_UNITS))
    return int(digits) * _UNITS[quantity[len(digits) :]]


def quantity_of(count: int) -> str:
    """Bytes as people read them: `1Gi`, `1.5Gi`, `200Mi`."""
    unit, size = next((pair for pair in _BINARY if count >= pair[1]), ("", 1))
    return f"{count / size:.4g}{unit}"


class Toleration(Section):
    """A taint of nodes that a pod puts up with."""

    key: LabelKey | None = Field(None, description="of the taint; null with Exists: of every one")
    operator: Literal["Exists", "Equal"] = Field("Equal", description="Equal compares the value")
    value: LabelValue = Field("", description="of the taint")
    effect: Literal["NoSchedule", "PreferNoSchedule", "NoExecute"] | None = Field(
        None, description="of the taint; null: any"
    )
    seconds: int | None = Field(
        None, ge=0, description="that a pod stays when the taint comes; null: for ever"
    )

    @model_validator(mode="after")
    def _as_kubernetes_has_it(self) -> Self:
        if self.key is None and self.operator == "Equal":
            raise ValueError("a toleration without a key has operator: Exists")
        if self.operator == "Exists" and self.value:
            raise ValueError(f"operator is Exists, which compares no value; {self.value} is one")
        if self.seconds is not None and self.effect != "NoExecute":
            raise ValueError("seconds are counted with effect: NoExecute alone")
        return self


class NodeRequirement(Section):
    """What a label of a node has to be, that it may run a pod; all of them have to hold."""

    key: LabelKey = Field(description="of the nodes' label")
    operator: Literal["In", "NotIn", "Exists", "DoesNotExist", "Gt", "Lt"] = Field(
        "In", description="In and NotIn compare with values, Gt and Lt with one whole number"
    )
    values: list[LabelValue] = Field([], description="that the label is compared with")

    @model_validator(mode="after")
    def _as_kubernetes_has_it(self) -> Self:
        compares = self.operator not in ("Exists", "DoesNotExist")
        if compares != bool(self.values):
            wants = "needs `values`" if compares else "has no `values`"
            raise ValueError(f"operator {self.operator} {wants}")
        if self.operator in ("Gt", "Lt") and not (
            len(self.values) == 1 and re.fullmatch(r"-?\d+", self.values[0])
        ):
            raise ValueError(f"operator {self.operator} compares with one whole number")
        return self


class PodSettings(Section):
    """Where the pods of a kind of task run, as whom, and what they are called."""

    LATER: ClassVar[tuple[str, ...]] = (
        "gpu_label",
        "extended_resources",
        "node_selector",
        "node_affinity",
        "tolerations",
        "service_account",
        "image_pull_secrets",
        "image_pull_policy",
        "priority_class",
        "pod_template_name",
        "labels",
        "annotations",
        "environment",
    )

    gpu_label: LabelKey | None = Field(
        None,
        description="the nodes' label that has gpu_type, such as nvidia.com/gpu.product; null: "
        "what the cluster's `gpu-device-node-label` says",
    )
    extended_resources: dict[Annotated[str, AfterValidator(_resource)], int] = Field(
        {}, description="other devices by the names of their plugins, such as rdma/hca_shared: 1"
    )
    node_selector: dict[LabelKey, LabelValue] = Field({}, description="labels that nodes have")
    node_affinity: list[NodeRequirement] = Field(
        [], description="what else has to hold of the labels of nodes"
    )
    tolerations: list[Toleration] = Field(
        [], description="taints of nodes; with gpus, nvidia.com/gpu is among them"
    )
    service_account: ObjectName | None = Field(
        None, description="null: what the cluster, the launch plan or the command line says"
    )
    image_pull_secrets: list[ObjectName] = Field([], description="for a private registry")
    image_pull_policy: Literal["Always", "IfNotPresent", "Never"] | None = Field(
        None, description="null: Always for an image without a tag or of tag latest"
    )
    priority_class: ObjectName | None = Field(None, description="null: the cluster's default")
    pod_template_name: ObjectName | None = Field(
        None, description="a PodTemplate of the cluster, which all the others are laid over"
    )
    labels: dict[LabelKey, LabelValue] = Field({}, description="of the pods")
    annotations: dict[LabelKey, str] = Field({}, description="of the pods")
    environment: dict[Annotated[str, AfterValidator(_variable)], str] = Field(
        {}, description="variables of the pods; no secrets, which go by SIQVL_SECRETS"
    )

    @model_validator(mode="after")
    def _sound(self) -> Self:
        for name, count in self.extended_resources.items():
            if count < 1:
                raise ValueError(f"extended_resources has {count} of {name}; ask for 1 or more")
        for name, value in self.environment.items():
            if has_password(value):
                raise ValueError(
                    f"environment.{name} has a password in it, which Flyte would show with the "
                    "task: keep it in the secret `siqvl` and name it in SIQVL_SECRETS"
                )
        return self
