"""FlyteAdmin and its data proxy, as far as clients ask for them."""

from __future__ import annotations

import base64
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

import grpc
from flyteidl.admin import (
    common_pb2,
    execution_pb2,
    launch_plan_pb2,
    node_execution_pb2,
    task_execution_pb2,
    task_pb2,
    workflow_pb2,
)
from flyteidl.service import (
    admin_pb2_grpc,
    dataproxy_pb2,
    dataproxy_pb2_grpc,
)

from . import views
from .engine import Engine
from .records import Execution, NodeRecord
from .registry import AlreadyExists, Different, Invalid, NotFound, Registry, Shelf, key_of
from .store import Store

CODES = {
    AlreadyExists: grpc.StatusCode.ALREADY_EXISTS,
    Different: grpc.StatusCode.INVALID_ARGUMENT,
    Invalid: grpc.StatusCode.INVALID_ARGUMENT,
    NotFound: grpc.StatusCode.NOT_FOUND,
}


@contextmanager
def _answering(context: grpc.ServicerContext) -> Iterator[None]:
    """Turn what the registry and the engine say into gRPC's status codes."""
    try:
        yield
    except tuple(CODES) as error:
        context.abort(CODES[type(error)], str(error))


class Admin(admin_pb2_grpc.AdminServiceServicer):  # type: ignore[misc]
    """Answers from the registry and from the records of executions."""

    def __init__(self, registry: Registry, engine: Engine):
        self._registry = registry
        self._engine = engine

    def CreateTask(self, request: Any, context: Any) -> task_pb2.TaskCreateResponse:
        with _answering(context):
            self._registry.tasks.add(request.id, request.spec)
        return task_pb2.TaskCreateResponse()

    def GetTask(self, request: Any, context: Any) -> task_pb2.Task:
        with _answering(context):
            spec = self._registry.tasks.get(request.id)
        return views.task_view(spec, self._registry.tasks.created[key_of(request.id)])

    def ListTasks(self, request: Any, context: Any) -> task_pb2.TaskList:
        found = [
            views.task_view(spec, self._registry.tasks.created[key])
            for key, spec in _asked(self._registry.tasks, request)
        ]
        return task_pb2.TaskList(tasks=found)

    def ListTaskIds(self, request: Any, context: Any) -> Any:
        return _names(self._registry.tasks, request)

    def CreateWorkflow(self, request: Any, context: Any) -> workflow_pb2.WorkflowCreateResponse:
        with _answering(context):
            spec = request.spec
            self._registry.closure_of(spec.template, list(spec.sub_workflows))
            self._registry.workflows.add(request.id, spec)
        return workflow_pb2.WorkflowCreateResponse()

    def GetWorkflow(self, request: Any, context: Any) -> workflow_pb2.Workflow:
        with _answering(context):
            closure = self._registry.closure(request.id)
        return views.workflow_view(closure, self._registry.workflows.created[key_of(request.id)])

    def ListWorkflows(self, request: Any, context: Any) -> workflow_pb2.WorkflowList:
        shelf = self._registry.workflows
        found = [
            views.workflow_view(self._registry.closure(shelf.specs[key][0]), shelf.created[key])
            for key, _ in _asked(shelf, request)
        ]
        return workflow_pb2.WorkflowList(workflows=found)

    def ListWorkflowIds(self, request: Any, context: Any) -> Any:
        return _names(self._registry.workflows, request)

    def CreateLaunchPlan(
        self, request: Any, context: Any
    ) -> launch_plan_pb2.LaunchPlanCreateResponse:
        with _answering(context):
            self._registry.expected_inputs(request.spec)  # its workflow has to be there
            self._registry.launch_plans.add(request.id, request.spec)
        return launch_plan_pb2.LaunchPlanCreateResponse()

    def GetLaunchPlan(self, request: Any, context: Any) -> launch_plan_pb2.LaunchPlan:
        with _answering(context):
            self._registry.launch_plans.get(request.id)
        return views.launch_plan_view(self._registry, key_of(request.id))

    def GetActiveLaunchPlan(self, request: Any, context: Any) -> launch_plan_pb2.LaunchPlan:
        id = request.id
        with _answering(context):
            key = self._registry.active.get((id.project, id.domain, id.name))
            if key is None:
                raise NotFound(f"no version of launch plan {id.name} is active")
        return views.launch_plan_view(self._registry, key)

    def ListActiveLaunchPlans(self, request: Any, context: Any) -> launch_plan_pb2.LaunchPlanList:
        found = [
            views.launch_plan_view(self._registry, key)
            for key in self._registry.active.values()
            if key[:2] == (request.project, request.domain)
        ]
        return launch_plan_pb2.LaunchPlanList(launch_plans=found)

    def ListLaunchPlans(self, request: Any, context: Any) -> launch_plan_pb2.LaunchPlanList:
        found = [
            views.launch_plan_view(self._registry, key)
            for key, _ in _asked(self._registry.launch_plans, request)
        ]
        return launch_plan_pb2.LaunchPlanList(launch_plans=found)

    def ListLaunchPlanIds(self, request: Any, context: Any) -> Any:
        return _names(self._registry.launch_plans, request)

    def UpdateLaunchPlan(
        self, request: Any, context: Any
    ) -> launch_plan_pb2.LaunchPlanUpdateResponse:
        with _answering(context):
            if request.state == launch_plan_pb2.ACTIVE:
                self._registry.activate(request.id)
            else:
                self._registry.deactivate(request.id)
        return launch_plan_pb2.LaunchPlanUpdateResponse()

    def CreateExecution(self, request: Any, context: Any) -> execution_pb2.ExecutionCreateResponse:
        with _answering(context):
            execution = self._engine.create(request)
        return execution_pb2.ExecutionCreateResponse(id=execution.id)

    def GetExecution(self, request: Any, context: Any) -> execution_pb2.Execution:
        return views.execution_view(self._execution(request.id, context))

    def GetExecutionData(
        self, request: Any, context: Any
    ) -> execution_pb2.WorkflowExecutionGetDataResponse:
        execution = self._execution(request.id, context)
        return execution_pb2.WorkflowExecutionGetDataResponse(
            full_inputs=execution.inputs, full_outputs=execution.outputs
        )

    def ListExecutions(self, request: Any, context: Any) -> execution_pb2.ExecutionList:
        found = [
            views.execution_view(execution)
            for execution in reversed(list(self._engine.executions.values()))
            if (execution.id.project, execution.id.domain)
            == (request.id.project, request.id.domain)
        ]
        return execution_pb2.ExecutionList(executions=found[: request.limit or None])

    def TerminateExecution(
        self, request: Any, context: Any
    ) -> execution_pb2.ExecutionTerminateResponse:
        self._execution(request.id, context).cancel.set(request.cause or "terminated")
        return execution_pb2.ExecutionTerminateResponse()

    def ListNodeExecutions(self, request: Any, context: Any) -> Any:
        execution = self._execution(request.workflow_execution_id, context)
        found = [
            views.node_view(execution, record)
            for record in list(execution.nodes)
            if record.parent == request.unique_parent_id
        ]
        return node_execution_pb2.NodeExecutionList(node_executions=found)

    def GetNodeExecution(self, request: Any, context: Any) -> node_execution_pb2.NodeExecution:
        return views.node_view(*self._node(request.id, context))

    def GetNodeExecutionData(
        self, request: Any, context: Any
    ) -> node_execution_pb2.NodeExecutionGetDataResponse:
        _, record = self._node(request.id, context)
        response = node_execution_pb2.NodeExecutionGetDataResponse(
            full_inputs=record.inputs, full_outputs=record.outputs
        )
        if record.dynamic is not None:
            response.dynamic_workflow.id.CopyFrom(record.dynamic.primary.template.id)
            response.dynamic_workflow.compiled_workflow.CopyFrom(record.dynamic)
        return response

    def GetDynamicNodeWorkflow(
        self, request: Any, context: Any
    ) -> node_execution_pb2.DynamicNodeWorkflowResponse:
        _, record = self._node(request.id, context)
        return node_execution_pb2.DynamicNodeWorkflowResponse(compiled_workflow=record.dynamic)

    def ListTaskExecutions(self, request: Any, context: Any) -> Any:
        execution, record = self._node(request.node_execution_id, context)
        found = views.task_views(execution, record) if record.task else []
        return task_execution_pb2.TaskExecutionList(task_executions=found)

    def GetTaskExecution(self, request: Any, context: Any) -> task_execution_pb2.TaskExecution:
        execution, record = self._node(request.id.node_execution_id, context)
        return views.task_views(execution, record)[request.id.retry_attempt]

    def GetTaskExecutionData(
        self, request: Any, context: Any
    ) -> task_execution_pb2.TaskExecutionGetDataResponse:
        _, record = self._node(request.id.node_execution_id, context)
        return task_execution_pb2.TaskExecutionGetDataResponse(
            full_inputs=record.inputs, full_outputs=record.outputs
        )

    def _execution(self, id: Any, context: Any) -> Execution:
        with _answering(context):
            return self._engine.get(id)
        raise AssertionError("the call was ended")

    def _node(self, id: Any, context: Any) -> tuple[Execution, NodeRecord]:
        execution = self._execution(id.execution_id, context)
        for record in list(execution.nodes):
            if record.id == id.node_id:
                return execution, record
        context.abort(grpc.StatusCode.NOT_FOUND, f"node {id.node_id} did not run")
        raise AssertionError("the call was ended")


class DataProxy(dataproxy_pb2_grpc.DataProxyServiceServicer):  # type: ignore[misc]
    """Tells clients where to upload."""

    def __init__(self, store: Store):
        self._store = store

    def CreateUploadLocation(self, request: Any, context: Any) -> Any:
        digest = base64.b32encode(request.content_md5).decode().strip("=")
        root = request.filename_root or digest
        parts = (request.project, request.domain, root, request.filename)
        address = self._store.address("/".join(("uploads", *filter(None, parts))))
        return dataproxy_pb2.CreateUploadLocationResponse(
            signed_url=self._store.upload_url(address), native_url=address
        )


def _asked(shelf: Shelf[Any], request: Any) -> Iterator[tuple[Any, Any]]:
    """Versions of one name, newest first, as many as were asked for."""
    id = request.id
    for index, found in enumerate(shelf.versions(id.project, id.domain, id.name)):
        if request.limit and index >= request.limit:
            return
        yield found


def _names(shelf: Shelf[Any], request: Any) -> common_pb2.NamedEntityIdentifierList:
    names = dict.fromkeys(key[2] for key, _ in shelf.versions(request.project, request.domain))
    entities = [
        common_pb2.NamedEntityIdentifier(project=request.project, domain=request.domain, name=name)
        for name in names
    ]
    return common_pb2.NamedEntityIdentifierList(entities=entities)


def serve(admin: Admin, proxy: DataProxy) -> tuple[grpc.Server, int]:
    """Start answering on a free port."""
    server = grpc.server(ThreadPoolExecutor(max_workers=16))
    admin_pb2_grpc.add_AdminServiceServicer_to_server(admin, server)
    dataproxy_pb2_grpc.add_DataProxyServiceServicer_to_server(proxy, server)
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    return server, port
