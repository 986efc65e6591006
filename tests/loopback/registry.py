"""What was registered: tasks, workflows and launch plans by their identifiers."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar

from flyteidl.admin import launch_plan_pb2, task_pb2
from flyteidl.admin import workflow_pb2 as admin_workflow_pb2
from flyteidl.core import (
    compiler_pb2,
    identifier_pb2,
    interface_pb2,
    literals_pb2,
    tasks_pb2,
    workflow_pb2,
)
from google.protobuf import json_format
from google.protobuf.message import Message

Key = tuple[str, str, str, str]
S = TypeVar("S", bound=Message)


class AlreadyExists(Exception):
    """The very same thing was registered before."""


class Different(Exception):
    """The identifier is taken by something else."""


class NotFound(Exception):
    """Nothing is registered by this identifier."""


class Invalid(Exception):
    """What was sent can not be registered or run."""


def key_of(id: identifier_pb2.Identifier) -> Key:
    return (id.project, id.domain, id.name, id.version)


@dataclass
class Shelf(Generic[S]):
    """Specs of one kind, in the order in which they came."""

    kind: str
    specs: dict[Key, tuple[identifier_pb2.Identifier, S]] = field(default_factory=dict)
    created: dict[Key, float] = field(default_factory=dict)

    def add(self, id: identifier_pb2.Identifier, spec: S) -> None:
        key = key_of(id)
        if key in self.specs:
            before, now = _ordered(self.specs[key][1]), _ordered(spec)
            if before == now:
                raise AlreadyExists(f"{self.kind} with identical structure already exists")
            raise Different(
                f"{id.name} {self.kind} with different structure already exists. (Please register "
                f"a new version of the {self.kind}):\n{differences(before, now)}"
            )
        self.specs[key] = (id, spec)
        self.created[key] = time.time()

    def get(self, id: identifier_pb2.Identifier) -> S:
        try:
            return self.specs[key_of(id)][1]
        except KeyError:
            message = f"{self.kind} {id.project}:{id.domain}:{id.name}:{id.version} is unknown"
            raise NotFound(message) from None

    def versions(self, project: str, domain: str, name: str = "") -> Iterator[tuple[Key, S]]:
        """Newest first; of every name when none is given."""
        for key, (_, spec) in reversed(self.specs.items()):
            if key[:2] == (project, domain) and name in ("", key[2]):
                yield key, spec


@dataclass
class Registry:
    """All that `pyflyte register` and `pyflyte run` sent."""

    tasks: Shelf[task_pb2.TaskSpec] = field(default_factory=lambda: Shelf("task"))
    workflows: Shelf[admin_workflow_pb2.WorkflowSpec] = field(
        default_factory=lambda: Shelf("workflow")
    )
    launch_plans: Shelf[launch_plan_pb2.LaunchPlanSpec] = field(
        default_factory=lambda: Shelf("launch plan")
    )
    active: dict[tuple[str, str, str], Key] = field(default_factory=dict)
    #: `task_resources.limits` by the names of Kubernetes; none where there is nothing.
    limits: Mapping[str, str] = field(default_factory=dict)

    def template(self, id: identifier_pb2.Identifier) -> tasks_pb2.TaskTemplate:
        return self.tasks.get(id).template

    def closure(self, id: identifier_pb2.Identifier) -> compiler_pb2.CompiledWorkflowClosure:
        """A workflow with the sub-workflows and tasks it needs."""
        spec = self.workflows.get(id)
        return self.closure_of(spec.template, spec.sub_workflows)

    def closure_of(
        self,
        template: workflow_pb2.WorkflowTemplate,
        sub_workflows: Sequence[workflow_pb2.WorkflowTemplate],
        own_tasks: Sequence[tasks_pb2.TaskTemplate] = (),
    ) -> compiler_pb2.CompiledWorkflowClosure:
        """The same for a template that may bring tasks of its own, as dynamic ones do."""
        own = {key_of(task.id): task for task in own_tasks}
        tasks: dict[Key, tasks_pb2.TaskTemplate] = {}
        for workflow in (template, *sub_workflows):
            for id in task_ids(workflow):
                tasks[key_of(id)] = own.get(key_of(id)) or self.template(id)
        return compiler_pb2.CompiledWorkflowClosure(
            primary=compiler_pb2.CompiledWorkflow(template=template),
            sub_workflows=[compiler_pb2.CompiledWorkflow(template=sub) for sub in sub_workflows],
            tasks=[compiler_pb2.CompiledTask(template=task) for task in tasks.values()],
        )

    def activate(self, id: identifier_pb2.Identifier) -> None:
        """Make a launch plan the active one of its name."""
        self.launch_plans.get(id)
        key = key_of(id)
        self.active[key[:3]] = key

    def deactivate(self, id: identifier_pb2.Identifier) -> None:
        key = key_of(id)
        if self.active.get(key[:3]) == key:
            del self.active[key[:3]]

    def expected_inputs(
        self, spec: launch_plan_pb2.LaunchPlanSpec
    ) -> dict[str, interface_pb2.Parameter]:
        """What may be given to a launch plan: its workflow's inputs, less those that are fixed."""
        interface = self.workflows.get(spec.workflow_id).template.interface
        return {
            name: spec.default_inputs.parameters.get(name)
            or interface_pb2.Parameter(var=variable, required=True)
            for name, variable in interface.inputs.variables.items()
            if name not in spec.fixed_inputs.literals
        }


def inputs_for(
    expected: dict[str, interface_pb2.Parameter],
    given: literals_pb2.LiteralMap,
    fixed: literals_pb2.LiteralMap,
) -> literals_pb2.LiteralMap:
    """What was given over the defaults; nothing unknown, nothing missing."""
    if unknown := sorted(set(given.literals) - set(expected)):
        raise Invalid(f"invalid input {', '.join(unknown)}: not among the expected inputs")
    literals = dict(fixed.literals)
    for name, parameter in expected.items():
        if name in given.literals:
            literals[name] = given.literals[name]
        elif parameter.HasField("default"):
            literals[name] = parameter.default
        else:
            raise Invalid(f"expected input {name} is missing")
    return literals_pb2.LiteralMap(literals=literals)


def _ordered(spec: S) -> S:
    """The same spec with upstream ids sorted: flytekit takes them from a set, in any order."""
    if not isinstance(spec, admin_workflow_pb2.WorkflowSpec):
        return spec
    copy = admin_workflow_pb2.WorkflowSpec()
    copy.CopyFrom(spec)
    for template in (copy.template, *copy.sub_workflows):
        for node in nodes_of(template):
            node.upstream_node_ids.sort()
    return copy


def differences(before: Message, now: Message) -> str:
    """Where two specs differ, path by path, as FlyteAdmin lists it (seen on 1.16.8)."""
    old, new = _leaves(json_format.MessageToDict(before)), _leaves(json_format.MessageToDict(now))
    paths = [path for path in dict.fromkeys([*old, *new]) if old.get(path) != new.get(path)]
    return "\n".join(
        f"{path}:\n\t- {old.get(path, '<nil>')} \n\t+ {new.get(path, '<nil>')}" for path in paths
    )


def _leaves(value: Any, path: str = "") -> dict[str, Any]:
    """Values by their paths."""
    if isinstance(value, dict):
        inner = value.items()
    elif isinstance(value, list):
        inner = enumerate(value)
    else:
        return {path: value}
    return {
        key: leaf for name, one in inner for key, leaf in _leaves(one, f"{path}/{name}").items()
    }


def nodes_of(template: workflow_pb2.WorkflowTemplate) -> Iterator[workflow_pb2.Node]:
    """Every node, those inside branches, arrays and the failure node included."""
    roots = [*template.nodes]
    if template.HasField("failure_node"):
        roots.append(template.failure_node)
    for root in roots:
        yield from _with_inner(root)


def branches(node: workflow_pb2.Node) -> list[workflow_pb2.Node]:
    """The nodes that a branch node chooses from."""
    block = node.branch_node.if_else
    chosen = [block.case.then_node, *(case.then_node for case in block.other)]
    return [*chosen, block.else_node] if block.HasField("else_node") else chosen


def _with_inner(node: workflow_pb2.Node) -> Iterator[workflow_pb2.Node]:
    yield node
    match node.WhichOneof("target"):
        case "branch_node":
            for inner in branches(node):
                yield from _with_inner(inner)
        case "array_node":
            yield from _with_inner(node.array_node.node)


def task_ids(template: workflow_pb2.WorkflowTemplate) -> Iterator[identifier_pb2.Identifier]:
    for node in nodes_of(template):
        if node.WhichOneof("target") == "task_node":
            yield node.task_node.reference_id
