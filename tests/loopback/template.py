"""The container that a task runs in, whether its template has a container or a whole pod.

Propeller 1.16.8 (read: `BuildRawPod` in flyteplugins): of a pod, the primary container is the one
that the template's `config` names.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from flyteidl.core import tasks_pb2
from google.protobuf import json_format

NAMES = {
    tasks_pb2.Resources.CPU: "cpu",
    tasks_pb2.Resources.GPU: "gpu",
    tasks_pb2.Resources.MEMORY: "memory",
    tasks_pb2.Resources.EPHEMERAL_STORAGE: "ephemeral-storage",
}


@dataclass(frozen=True)
class Main:
    """What runs a task, and what it asks for."""

    image: str
    arguments: list[str]
    variables: dict[str, str]
    requests: dict[str, str] = field(default_factory=dict)
    limits: dict[str, str] = field(default_factory=dict)


def main_of(template: tasks_pb2.TaskTemplate) -> Main:
    """The container of a task."""
    if not template.HasField("k8s_pod"):
        container = template.container
        return Main(
            image=container.image,
            arguments=[*container.command, *container.args],
            variables={pair.key: pair.value for pair in container.env},
            requests=entries(container.resources.requests),
            limits=entries(container.resources.limits),
        )
    spec, name = pod_spec(template), template.config["primary_container_name"]
    (found,) = [one for one in spec["containers"] if one["name"] == name]
    resources = found.get("resources", {})
    return Main(
        image=found["image"],
        arguments=[*found.get("command", []), *found.get("args", [])],
        variables={one["name"]: one["value"] for one in found.get("env", [])},
        requests=resources.get("requests", {}),
        limits=resources.get("limits", {}),
    )


def pod_spec(template: tasks_pb2.TaskTemplate) -> dict[str, Any]:
    """The pod of a template that has one, in Kubernetes' own words."""
    spec: dict[str, Any] = json_format.MessageToDict(template.k8s_pod.pod_spec)
    return spec


def entries(found: Any) -> dict[str, str]:
    """Resources as Flyte lists them, by the names of Kubernetes."""
    return {NAMES[one.name]: one.value for one in found}
