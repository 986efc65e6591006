"""The container of a task: of a plain template, or the primary one of a pod's."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from flyteidl.core import tasks_pb2, workflow_pb2
from google.protobuf import json_format

from .pods import GRACE

NAMES = {
    "cpu": tasks_pb2.Resources.CPU,
    "memory": tasks_pb2.Resources.MEMORY,
    "ephemeral-storage": tasks_pb2.Resources.EPHEMERAL_STORAGE,
    "nvidia.com/gpu": tasks_pb2.Resources.GPU,
}


@dataclass(frozen=True)
class Container:
    """What is started, and in which surroundings."""

    name: str  # empty: that of its pod
    image: str
    arguments: Sequence[str]
    variables: Mapping[str, str]
    resources: tasks_pb2.Resources
    grace: float = GRACE  # seconds between SIGTERM and SIGKILL
    pod_spec: Mapping[str, Any] = field(default_factory=dict)  # of a pod template, else empty


def container_of(template: tasks_pb2.TaskTemplate, node: workflow_pb2.Node) -> Container:
    """The container that runs a task at a node; the node's image and pod template come first."""
    overrides = node.task_node.overrides
    if overrides.HasField("pod_template"):
        pod = overrides.pod_template
    elif template.WhichOneof("target") == "k8s_pod":
        pod = template.k8s_pod
    else:
        plain = template.container
        return Container(
            name="",
            image=overrides.container_image or plain.image,
            arguments=[*plain.command, *plain.args],
            variables={pair.key: pair.value for pair in plain.env},
            resources=plain.resources,
        )
    spec = json_format.MessageToDict(pod.pod_spec)
    name = pod.primary_container_name or template.config["primary_container_name"]
    primary = next(each for each in spec["containers"] if each["name"] == name)
    return Container(
        name=name,
        image=overrides.container_image or primary["image"],
        arguments=[*primary.get("command", ()), *primary.get("args", ())],
        variables={each["name"]: each.get("value", "") for each in primary.get("env", ())},
        resources=_resources(primary.get("resources", {})),
        grace=float(spec.get("terminationGracePeriodSeconds", GRACE)),
        pod_spec=spec,
    )


def _resources(wanted: Mapping[str, Mapping[str, Any]]) -> tasks_pb2.Resources:
    def entries(kind: str) -> list[tasks_pb2.Resources.ResourceEntry]:
        return [
            tasks_pb2.Resources.ResourceEntry(name=NAMES[name], value=str(value))
            for name, value in wanted.get(kind, {}).items()
            if name in NAMES
        ]

    return tasks_pb2.Resources(requests=entries("requests"), limits=entries("limits"))
