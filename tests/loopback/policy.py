"""What a node asks for: its task's template, with the node's own overrides on top."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from flyteidl.core import tasks_pb2, workflow_pb2

from .template import main_of


@dataclass(frozen=True)
class Policy:
    """How a task is to be run at one node."""

    retries: int
    timeout: float | None  # seconds
    interruptible: bool
    cacheable: bool
    cache_version: str
    cache_serializable: bool
    cache_ignored: tuple[str, ...]
    image: str
    resources: tasks_pb2.Resources
    extended_resources: tasks_pb2.ExtendedResources


def policy_of(template: tasks_pb2.TaskTemplate, node: workflow_pb2.Node) -> Policy:
    """A value that the node sets wins over the template's."""
    task, own = template.metadata, node.metadata
    overrides = node.task_node.overrides
    timeout = (own if own.HasField("timeout") else task).timeout.ToTimedelta().total_seconds()
    resources, extended = template.container.resources, template.extended_resources
    return Policy(
        retries=(own if own.HasField("retries") else task).retries.retries,
        timeout=timeout or None,
        interruptible=_chosen(own, "interruptible", task.interruptible),
        cacheable=_chosen(own, "cacheable", task.discoverable),
        cache_version=_chosen(own, "cache_version", task.discovery_version),
        cache_serializable=_chosen(own, "cache_serializable", task.cache_serializable),
        cache_ignored=tuple(task.cache_ignore_input_vars),
        image=overrides.container_image or main_of(template).image,
        resources=overrides.resources if overrides.HasField("resources") else resources,
        extended_resources=(
            overrides.extended_resources if overrides.HasField("extended_resources") else extended
        ),
    )


def _chosen(metadata: workflow_pb2.NodeMetadata, name: str, default: Any) -> Any:
    """The node's value when it has one: an unset one is told from `False` by the oneof."""
    return getattr(metadata, name) if metadata.WhichOneof(f"{name}_value") else default
