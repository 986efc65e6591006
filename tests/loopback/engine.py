"""The engine: executions, and what runs at each kind of node."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from uuid import uuid4

from flyteidl.admin import execution_pb2
from flyteidl.core import (
    compiler_pb2,
    dynamic_job_pb2,
    identifier_pb2,
    interface_pb2,
    literals_pb2,
    tasks_pb2,
    workflow_pb2,
)
from flyteidl.core import (
    execution_pb2 as core_pb2,
)

from .array import index_variables, run_array
from .bindings import START, Outputs, resolve
from .conditions import chosen
from .failure import with_error
from .graph import run_graph
from .policy import policy_of
from .records import Aborted, Cancel, Element, Execution, Failure, NodeRecord
from .registry import Invalid, Key, NotFound, Registry, inputs_for, key_of
from .tasks import TaskRunner, Work

Phase = core_pb2.WorkflowExecution


@dataclass(frozen=True)
class Scope:
    """Where a node runs: in which execution, below which node, and which definitions it sees."""

    execution: Execution
    closure: compiler_pb2.CompiledWorkflowClosure
    cancel: Cancel
    parent: str = ""
    prefix: str = ""
    outer: Outputs = field(default_factory=dict)  # for nodes inside a branch

    def task(self, id: identifier_pb2.Identifier) -> tasks_pb2.TaskTemplate:
        found = {key_of(each.template.id): each.template for each in self.closure.tasks}
        return found[key_of(id)]

    def sub_workflow(self, id: identifier_pb2.Identifier) -> workflow_pb2.WorkflowTemplate:
        found = {key_of(each.template.id): each.template for each in self.closure.sub_workflows}
        return found[key_of(id)]

    def below(self, record: NodeRecord, attempt: int = 0) -> Scope:
        """The scope of a node's children; their ids begin with the node's and its attempt's."""
        return replace(self, parent=record.id, prefix=f"{record.id}-{attempt}-")

    def stopped_by(self, cancel: Cancel) -> Scope:
        return replace(self, cancel=cancel)


@dataclass
class Engine:
    """Runs executions, each in a thread of its own."""

    registry: Registry
    tasks: TaskRunner
    executions: dict[Key, Execution] = field(default_factory=dict)

    def create(self, request: execution_pb2.ExecutionCreateRequest) -> Execution:
        """Check what was asked for and start it."""
        named = request.spec.launch_plan
        if named.resource_type == identifier_pb2.TASK:
            template = self.registry.template(named)
            closure = _alone(template)
            parameters = {
                name: interface_pb2.Parameter(var=variable, required=True)
                for name, variable in template.interface.inputs.variables.items()
            }
            inputs = inputs_for(parameters, request.inputs, literals_pb2.LiteralMap())
        else:
            plan = self.registry.launch_plans.get(named)
            closure = self.registry.closure(plan.workflow_id)
            parameters = self.registry.expected_inputs(plan)
            inputs = inputs_for(parameters, request.inputs, plan.fixed_inputs)
        id = identifier_pb2.WorkflowExecutionIdentifier(
            project=request.project,
            domain=request.domain,
            name=request.name or f"a{uuid4().hex[:19]}",
        )
        execution = Execution(id=id, spec=request.spec, inputs=inputs, workflow=closure)
        key = (id.project, id.domain, id.name, "")
        if key in self.executions:
            raise Invalid(f"execution {id.name} already exists")
        self.executions[key] = execution
        threading.Thread(target=self._run, args=(execution,), daemon=True).start()
        return execution

    def get(self, id: identifier_pb2.WorkflowExecutionIdentifier) -> Execution:
        try:
            return self.executions[(id.project, id.domain, id.name, "")]
        except KeyError:
            raise NotFound(f"execution {id.name} is unknown") from None

    def stop(self) -> None:
        """Abort whatever runs, and wait until its pods are gone."""
        for execution in self.executions.values():
            execution.cancel.set("the cluster stops")
        self.tasks.pods.kill_all()
        for execution in self.executions.values():
            execution.finished.wait(timeout=30)

    def _run(self, execution: Execution) -> None:
        scope = Scope(execution, execution.workflow, execution.cancel)
        execution.phase = Phase.RUNNING
        phase = Phase.FAILED
        try:
            template = execution.workflow.primary.template
            execution.outputs = self._workflow(scope, template, execution.inputs)
            phase = Phase.SUCCEEDED
        except Aborted as failure:
            execution.error, phase = failure, Phase.ABORTED
        except Failure as failure:
            execution.error = failure
        except Exception as error:  # a defect of this double: told, not hidden
            execution.error = Failure("LoopbackDefect", repr(error))
            raise
        finally:
            execution.ended, execution.phase = time.time(), phase
            execution.finished.set()

    def _workflow(
        self,
        scope: Scope,
        template: workflow_pb2.WorkflowTemplate,
        inputs: literals_pb2.LiteralMap,
    ) -> literals_pb2.LiteralMap:
        def run_node(
            node: workflow_pb2.Node, outputs: Outputs, cancel: Cancel
        ) -> literals_pb2.LiteralMap:
            return self._node(scope.stopped_by(cancel), node, outputs)

        try:
            return run_graph(template, inputs, scope.cancel, run_node)
        except Aborted:
            raise
        except Failure as failure:
            if template.HasField("failure_node"):
                self._failure_node(scope, template.failure_node, inputs, failure)
            raise

    def _failure_node(
        self,
        scope: Scope,
        node: workflow_pb2.Node,
        inputs: literals_pb2.LiteralMap,
        failure: Failure,
    ) -> None:
        """Run it; that the workflow failed stays the news, whatever becomes of this node."""
        given = resolve(node.inputs, {START: inputs})
        if node.WhichOneof("target") == "task_node":
            interface = scope.task(node.task_node.reference_id).interface
        else:
            interface = scope.sub_workflow(node.workflow_node.sub_workflow_ref).interface
        record = self._record(scope, node)
        try:
            self._run_node(scope, record, with_error(given, interface, failure), {})
        except Failure as error:
            record.error = error

    def _node(
        self, scope: Scope, node: workflow_pb2.Node, outputs: Outputs
    ) -> literals_pb2.LiteralMap:
        record = self._record(scope, node)
        return self._run_node(scope, record, resolve(node.inputs, outputs), outputs)

    def _record(self, scope: Scope, node: workflow_pb2.Node) -> NodeRecord:
        record = NodeRecord(id=f"{scope.prefix}{node.id}", node=node, parent=scope.parent)
        scope.execution.nodes.append(record)
        return record

    def _run_node(
        self, scope: Scope, record: NodeRecord, inputs: literals_pb2.LiteralMap, outputs: Outputs
    ) -> literals_pb2.LiteralMap:
        record.inputs = inputs
        scope = replace(scope, outer=outputs)
        kind = record.node.WhichOneof("target")
        with record.running():
            scope.cancel.check()
            if kind not in self._kinds:
                raise Failure("UnsupportedNode", f"{kind} is not part of this double")
            record.outputs = self._kinds[kind](self, scope, record, inputs)
        return record.outputs

    def _task(
        self, scope: Scope, record: NodeRecord, inputs: literals_pb2.LiteralMap
    ) -> literals_pb2.LiteralMap:
        template = scope.task(record.node.task_node.reference_id)
        return self.tasks.run(self._work(scope, record, template, record.node, inputs))

    def _work(
        self,
        scope: Scope,
        record: NodeRecord,
        template: tasks_pb2.TaskTemplate,
        node: workflow_pb2.Node,
        inputs: literals_pb2.LiteralMap,
    ) -> Work:
        record.task, record.policy = template.id, policy_of(template, node)
        id = scope.execution.id
        address = self.tasks.store.address(
            f"metadata/{id.project}-{id.domain}-{id.name}/{record.id}/data/inputs.pb"
        )
        self.tasks.store.put(address, inputs)

        def expand(spec: dynamic_job_pb2.DynamicJobSpec, attempt: int) -> literals_pb2.LiteralMap:
            return self._dynamic(scope, record, template, spec, attempt)

        return Work(
            execution=scope.execution,
            cancel=scope.cancel,
            node=record.id,
            template=template,
            policy=record.policy,
            inputs=inputs,
            inputs_address=address,
            record=record,
            expand=expand,
        )

    def _dynamic(
        self,
        scope: Scope,
        record: NodeRecord,
        template: tasks_pb2.TaskTemplate,
        spec: dynamic_job_pb2.DynamicJobSpec,
        attempt: int,
    ) -> literals_pb2.LiteralMap:
        """Run the nodes that a dynamic task asks for; their outputs are the task's."""
        id = identifier_pb2.Identifier()
        id.CopyFrom(template.id)
        id.resource_type = identifier_pb2.WORKFLOW
        workflow = workflow_pb2.WorkflowTemplate(
            id=id,
            interface=interface_pb2.TypedInterface(outputs=template.interface.outputs),
            nodes=spec.nodes,
            outputs=spec.outputs,
        )
        closure = self.registry.closure_of(workflow, list(spec.subworkflows), list(spec.tasks))
        record.dynamic = closure
        record.is_parent = True  # last: a client that sees it asks for the rest
        below = replace(scope.below(record, attempt), closure=closure)
        return self._workflow(below, workflow, literals_pb2.LiteralMap())

    def _array(
        self, scope: Scope, record: NodeRecord, inputs: literals_pb2.LiteralMap
    ) -> literals_pb2.LiteralMap:
        array = record.node.array_node
        if array.node.WhichOneof("target") != "task_node":
            raise Failure("UnsupportedNode", "an array node of launch plans is not in this double")
        record.is_array = True
        template = scope.task(array.node.task_node.reference_id)
        work = self._work(scope, record, template, array.node, inputs)

        def run_element(
            element: Element, own: literals_pb2.LiteralMap, cancel: Cancel
        ) -> literals_pb2.LiteralMap:
            one = replace(
                work,
                record=element,
                index=element.index,
                inputs=own,
                cancel=cancel,
                variables=index_variables(element.index),
            )
            return self.tasks.run(one)

        return run_array(array, template, inputs, record.elements, scope.cancel, run_element)

    def _branch(
        self, scope: Scope, record: NodeRecord, inputs: literals_pb2.LiteralMap
    ) -> literals_pb2.LiteralMap:
        record.is_parent = True
        node = chosen(record.node.branch_node.if_else, inputs)
        return self._node(scope.below(record), node, scope.outer)

    def _workflow_node(
        self, scope: Scope, record: NodeRecord, inputs: literals_pb2.LiteralMap
    ) -> literals_pb2.LiteralMap:
        node = record.node.workflow_node
        if node.WhichOneof("reference") == "launchplan_ref":
            return self._launch_plan(scope, record, inputs)
        record.is_parent = True
        return self._workflow(
            scope.below(record), scope.sub_workflow(node.sub_workflow_ref), inputs
        )

    def _launch_plan(
        self, scope: Scope, record: NodeRecord, inputs: literals_pb2.LiteralMap
    ) -> literals_pb2.LiteralMap:
        """A launch plan at a node is an execution of its own."""
        spec = execution_pb2.ExecutionSpec()
        spec.CopyFrom(scope.execution.spec)
        spec.launch_plan.CopyFrom(record.node.workflow_node.launchplan_ref)
        id = scope.execution.id
        launched = self.create(
            execution_pb2.ExecutionCreateRequest(
                project=id.project, domain=id.domain, spec=spec, inputs=inputs
            )
        )
        record.launched = launched.id
        while not launched.finished.wait(timeout=0.2):
            if (reason := scope.cancel.reason) is not None:
                launched.cancel.set(reason)
        if launched.error:
            raise launched.error
        return launched.outputs

    _kinds: dict[
        str | None,
        Callable[[Engine, Scope, NodeRecord, literals_pb2.LiteralMap], literals_pb2.LiteralMap],
    ] = field(
        default_factory=lambda: {
            "task_node": Engine._task,
            "array_node": Engine._array,
            "branch_node": Engine._branch,
            "workflow_node": Engine._workflow_node,
        },
        init=False,
        repr=False,
    )


def _alone(template: tasks_pb2.TaskTemplate) -> compiler_pb2.CompiledWorkflowClosure:
    """The workflow of one node that Flyte makes for a single task."""

    def binding(var: str, node: str) -> literals_pb2.Binding:
        data = literals_pb2.BindingData()
        data.promise.node_id, data.promise.var = node, var
        return literals_pb2.Binding(var=var, binding=data)

    id = identifier_pb2.Identifier()
    id.CopyFrom(template.id)
    id.resource_type, id.name = identifier_pb2.WORKFLOW, f".flytegen.{template.id.name}"
    inputs, outputs = template.interface.inputs.variables, template.interface.outputs.variables
    node = workflow_pb2.Node(
        id="n0",
        inputs=[binding(name, START) for name in inputs],
        task_node=workflow_pb2.TaskNode(reference_id=template.id),
    )
    workflow = workflow_pb2.WorkflowTemplate(
        id=id,
        interface=template.interface,
        nodes=[node],
        outputs=[binding(name, "n0") for name in outputs],
    )
    return compiler_pb2.CompiledWorkflowClosure(
        primary=compiler_pb2.CompiledWorkflow(template=workflow),
        tasks=[compiler_pb2.CompiledTask(template=template)],
    )
