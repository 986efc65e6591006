"""What a node asks for: its task's template, with the node's own overrides on top."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from flyteidl.core import tasks_pb2, workflow_pb2

from .container import Container, container_of


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
    container: Container
    resources: tasks_pb2.Resources
    extended_resources: tasks_pb2.ExtendedResources

    @property
    def image(self) -> str:
        return self.container.image


def policy_of(template: tasks_pb2.TaskTemplate, node: workflow_pb2.Node) -> Policy:
    """A value that the node sets wins over the template's.

    Retries of a node that are 0 count as none set, and the template's are taken (seen, Flyte
    1.16.8, 2026-11-28). Time-out and interruptible are the node's alone: the node that FlyteAdmin
    makes for a task that runs alone has neither, whatever its template says (read, 1.16.8:
    `computeDeadline` of the compiler, `single_task_execution.go`).
    """
    task, own = template.metadata, node.metadata
    overrides = node.task_node.overrides
    container = container_of(template, node)
    return Policy(
        retries=own.retries.retries or task.retries.retries,
        timeout=own.timeout.ToTimedelta().total_seconds() or None,
        interruptible=_chosen(own, "interruptible", False),
        cacheable=_chosen(own, "cacheable", task.discoverable),
        cache_version=_chosen(own, "cache_version", task.discovery_version),
        cache_serializable=_chosen(own, "cache_serializable", task.cache_serializable),
        cache_ignored=tuple(task.cache_ignore_input_vars),
        container=container,
        resources=(overrides.resources if overrides.HasField("resources") else container.resources),
        extended_resources=(
            overrides.extended_resources
            if overrides.HasField("extended_resources")
            else template.extended_resources
        ),
    )


def _chosen(metadata: workflow_pb2.NodeMetadata, name: str, default: Any) -> Any:
    """The node's value when it has one: an unset one is told from `False` by the oneof."""
    return getattr(metadata, name) if metadata.WhichOneof(f"{name}_value") else default
