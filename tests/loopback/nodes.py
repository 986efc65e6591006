"""Nodes: what runs at each kind of node of a workflow."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace

from flyteidl.admin import execution_pb2
from flyteidl.core import (
    compiler_pb2,
    dynamic_job_pb2,
    identifier_pb2,
    literals_pb2,
    tasks_pb2,
    workflow_pb2,
)

from .array import index_variables, run_array
from .bindings import START, Outputs, resolve
from .conditions import chosen
from .dynamic import dynamic_closure
from .failure import with_error
from .graph import run_graph
from .policy import policy_of
from .records import (
    UNKNOWN,
    USER,
    Aborted,
    Cancel,
    Element,
    Execution,
    Failure,
    NodeRecord,
    TimedOut,
)
from .registry import Registry, key_of
from .tasks import TaskRunner, Work

Launch = Callable[[execution_pb2.ExecutionCreateRequest], Execution]


@dataclass(frozen=True)
class Scope:
    """Where a node runs: in which execution, below which node, and which definitions it sees."""

    execution: Execution
    closure: compiler_pb2.CompiledWorkflowClosure
    cancel: Cancel
    parent: str = ""
    prefix: str = ""
    outputs: Outputs = field(default_factory=dict)  # of the nodes beside it

    def task(self, id: identifier_pb2.Identifier) -> tasks_pb2.TaskTemplate:
        found = {key_of(each.template.id): each.template for each in self.closure.tasks}
        return found[key_of(id)]

    def sub_workflow(self, id: identifier_pb2.Identifier) -> workflow_pb2.WorkflowTemplate:
        found = {key_of(each.template.id): each.template for each in self.closure.sub_workflows}
        return found[key_of(id)]

    def below(self, record: NodeRecord, attempt: int = 0) -> Scope:
        """The scope of a node's children; their ids begin with the node's and its attempt's."""
        return replace(self, parent=record.id, prefix=f"{record.id}-{attempt}-")


@dataclass(frozen=True)
class Nodes:
    """Runs workflows, node by node, by what each node is."""

    tasks: TaskRunner
    registry: Registry
    launch: Launch

    def workflow(
        self,
        scope: Scope,
        template: workflow_pb2.WorkflowTemplate,
        inputs: literals_pb2.LiteralMap,
        *,
        planned: bool = False,
    ) -> literals_pb2.LiteralMap:
        """Run it and, when it fails, its failure node; that it failed stays the news.

        Args:
            planned: by a dynamic task.
        """

        def run_node(
            node: workflow_pb2.Node, outputs: Outputs, cancel: Cancel
        ) -> literals_pb2.LiteralMap:
            return self._node(replace(scope, cancel=cancel, outputs=outputs), node)

        try:
            return run_graph(template, inputs, scope.cancel, run_node)
        except Aborted:
            raise
        except Failure as error:
            failure = _of_workflow(error, planned=planned)
            if template.HasField("failure_node"):
                beside = replace(scope, outputs={START: inputs})
                self._failure_node(beside, template.failure_node, failure)
            raise failure from None

    def _node(self, scope: Scope, node: workflow_pb2.Node) -> literals_pb2.LiteralMap:
        record = self._record(scope, node)
        with record.running():
            record.inputs = resolve(node.inputs, scope.outputs)
            record.outputs = self._target(scope, record)
        return record.outputs

    def _failure_node(self, scope: Scope, node: workflow_pb2.Node, failure: Failure) -> None:
        if node.WhichOneof("target") == "task_node":
            interface = scope.task(node.task_node.reference_id).interface
        else:
            interface = scope.sub_workflow(node.workflow_node.sub_workflow_ref).interface
        record = self._record(scope, node)
        try:
            with record.running():
                given = resolve(node.inputs, scope.outputs)
                record.inputs = with_error(given, interface, failure, node.id)
                record.outputs = self._target(scope, record)
        except Failure:
            return  # kept in its record

    def _record(self, scope: Scope, node: workflow_pb2.Node) -> NodeRecord:
        kind = node.WhichOneof("target")
        sub_workflow = node.workflow_node.WhichOneof("reference") == "sub_workflow_ref"
        record = NodeRecord(
            id=f"{scope.prefix}{node.id}",
            node=node,
            parent=scope.parent,
            is_parent=kind == "branch_node" or sub_workflow,
            is_array=kind == "array_node",
        )
        scope.execution.nodes.append(record)
        return record

    def _target(self, scope: Scope, record: NodeRecord) -> literals_pb2.LiteralMap:
        scope.cancel.check()
        match record.node.WhichOneof("target"):
            case "task_node":
                template = scope.task(record.node.task_node.reference_id)
                return self.tasks.run(self._work(scope, record, template, record.node))
            case "array_node":
                return self._array(scope, record)
            case "branch_node":
                node = chosen(record.node.branch_node.if_else, record.inputs)
                return self._node(scope.below(record), node)
            case "workflow_node":
                return self._workflow_node(scope, record)
            case kind:
                raise Failure("UnsupportedNode", f"a {kind} is not part of this double")

    def _work(
        self,
        scope: Scope,
        record: NodeRecord,
        template: tasks_pb2.TaskTemplate,
        node: workflow_pb2.Node,
    ) -> Work:
        record.task, record.policy = template.id, policy_of(template, node)
        id = scope.execution.id
        address = self.tasks.store.address(
            f"metadata/{id.project}-{id.domain}-{id.name}/{record.id}/data/inputs.pb"
        )
        self.tasks.store.put(address, record.inputs)

        def expand(spec: dynamic_job_pb2.DynamicJobSpec, attempt: int) -> literals_pb2.LiteralMap:
            closure = dynamic_closure(self.registry, template, spec)
            record.dynamic = closure
            record.is_parent = True  # last: a client that sees it asks for the rest
            below = replace(scope.below(record, attempt), closure=closure)
            nothing = literals_pb2.LiteralMap()
            return self.workflow(below, closure.primary.template, nothing, planned=True)

        return Work(
            execution=scope.execution,
            cancel=scope.cancel,
            node=record.id,
            template=template,
            policy=record.policy,
            inputs=record.inputs,
            inputs_address=address,
            record=record,
            expand=expand,
        )

    def _array(self, scope: Scope, record: NodeRecord) -> literals_pb2.LiteralMap:
        array = record.node.array_node
        if array.node.WhichOneof("target") != "task_node":
            raise Failure("UnsupportedNode", "an array of launch plans is not part of this double")
        template = scope.task(array.node.task_node.reference_id)
        work = self._work(scope, record, template, array.node)

        def run_element(
            element: Element, inputs: literals_pb2.LiteralMap, cancel: Cancel
        ) -> literals_pb2.LiteralMap:
            return self.tasks.run(
                replace(
                    work,
                    record=element,
                    index=element.index,
                    inputs=inputs,
                    cancel=cancel,
                    variables=index_variables(element.index),
                )
            )

        return run_array(array, template, record, scope.cancel, run_element)

    def _workflow_node(self, scope: Scope, record: NodeRecord) -> literals_pb2.LiteralMap:
        node = record.node.workflow_node
        if node.WhichOneof("reference") == "launchplan_ref":
            return self._launch_plan(scope, record)
        template = scope.sub_workflow(node.sub_workflow_ref)
        return self.workflow(scope.below(record), template, record.inputs)

    def _launch_plan(self, scope: Scope, record: NodeRecord) -> literals_pb2.LiteralMap:
        """A launch plan at a node is an execution of its own."""
        spec, id = execution_pb2.ExecutionSpec(), scope.execution.id
        spec.CopyFrom(scope.execution.spec)
        spec.launch_plan.CopyFrom(record.node.workflow_node.launchplan_ref)
        launched = self.launch(
            execution_pb2.ExecutionCreateRequest(
                project=id.project, domain=id.domain, spec=spec, inputs=record.inputs
            )
        )
        record.launched = launched.id
        while not launched.finished.wait(timeout=0.2):
            if (reason := scope.cancel.reason) is not None:
                launched.cancel.set(reason)
        if launched.error:
            raise launched.error
        return launched.outputs


def _of_workflow(failure: Failure, *, planned: bool) -> Failure:
    """What a workflow fails with: its node's failure, unless that has none as its time is over.

    A dynamic task whose own nodes have timed out may be tried again (seen, Flyte 1.16.8,
    2026-11-28); of other workflows it is read there (`handleRunningWorkflow`).
    """
    if not isinstance(failure, TimedOut):
        return failure
    if planned:
        said = "Dynamic workflow failed"
        return Failure("DynamicNodeFailing", said, kind=UNKNOWN, recoverable=True)
    return Failure("Timeout", "Timeout in node", kind=USER)
