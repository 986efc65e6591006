"""The engine: executions, each in a thread of its own."""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass, field
from uuid import uuid4

from flyteidl.admin import execution_pb2
from flyteidl.core import compiler_pb2, identifier_pb2, literals_pb2
from flyteidl.core.execution_pb2 import WorkflowExecution as Phase

from . import single_task
from .nodes import Nodes, Scope
from .records import Aborted, Execution, Failure
from .registry import AlreadyExists, Key, NotFound, Registry, inputs_for
from .tasks import TaskRunner


@dataclass
class Engine:
    """Starts executions, knows them, and ends them."""

    registry: Registry
    tasks: TaskRunner
    executions: dict[Key, Execution] = field(default_factory=dict)

    def create(self, request: execution_pb2.ExecutionCreateRequest) -> Execution:
        """Check what was asked for and start it."""
        closure, inputs = self._asked(request)
        id = identifier_pb2.WorkflowExecutionIdentifier(
            project=request.project,
            domain=request.domain,
            name=request.name or f"a{uuid4().hex[:19]}",
        )
        execution = Execution(id=id, spec=request.spec, inputs=inputs, workflow=closure)
        key = (id.project, id.domain, id.name, "")
        if key in self.executions:
            raise AlreadyExists(f"execution {id.name} already exists")
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
        for execution in list(self.executions.values()):
            execution.cancel.set("the cluster stops")
        self.tasks.pods.kill_all()
        for execution in list(self.executions.values()):
            execution.finished.wait(timeout=30)
        self.tasks.pods.wait()

    def _asked(
        self, request: execution_pb2.ExecutionCreateRequest
    ) -> tuple[compiler_pb2.CompiledWorkflowClosure, literals_pb2.LiteralMap]:
        """The workflow of a launch plan, or one made for a single task; and its inputs."""
        named = request.spec.launch_plan
        if named.resource_type == identifier_pb2.TASK:
            template = self.registry.template(named)
            expected, fixed = single_task.parameters_of(template), literals_pb2.LiteralMap()
            return single_task.workflow_of(template), inputs_for(expected, request.inputs, fixed)
        plan = self.registry.launch_plans.get(named)
        expected = self.registry.expected_inputs(plan)
        inputs = inputs_for(expected, request.inputs, plan.fixed_inputs)
        return self.registry.closure(plan.workflow_id), inputs

    def _run(self, execution: Execution) -> None:
        nodes = Nodes(self.tasks, self.registry, self.create)
        scope = Scope(execution, execution.workflow, execution.cancel)
        execution.phase = Phase.RUNNING
        try:
            template = execution.workflow.primary.template
            execution.outputs = nodes.workflow(scope, template, execution.inputs)
            phase = Phase.SUCCEEDED
        except Aborted as failure:
            execution.error, phase = failure, Phase.ABORTED
        except Failure as failure:
            execution.error, phase = failure, Phase.FAILED
        execution.ended, execution.phase = time.time(), phase
        execution.finished.set()
