"""FlyteAdmin and its data proxy, as far as clients ask for them."""

from __future__ import annotations

import base64
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import grpc
from flyteidl.admin import execution_pb2, node_execution_pb2, task_execution_pb2
from flyteidl.service import admin_pb2_grpc, dataproxy_pb2, dataproxy_pb2_grpc

from . import views
from .engine import Engine
from .records import Execution, NodeRecord
from .registration import Registration, answering
from .registry import Registry
from .store import Store


class Admin(Registration):
    """Answers from the registry and from the records of executions."""

    def __init__(self, registry: Registry, engine: Engine):
        self._registry = registry
        self._engine = engine

    def CreateExecution(self, request: Any, context: Any) -> execution_pb2.ExecutionCreateResponse:
        with answering(context):
            execution = self._engine.create(request)
        return execution_pb2.ExecutionCreateResponse(id=execution.id)

    def RelaunchExecution(
        self, request: Any, context: Any
    ) -> execution_pb2.ExecutionCreateResponse:
        with answering(context):
            execution = self._engine.again(request, execution_pb2.ExecutionMetadata.RELAUNCH)
        return execution_pb2.ExecutionCreateResponse(id=execution.id)

    def RecoverExecution(self, request: Any, context: Any) -> execution_pb2.ExecutionCreateResponse:
        with answering(context):
            execution = self._engine.again(request, execution_pb2.ExecutionMetadata.RECOVERED)
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
        execution = self._execution(request.id, context)
        if execution.finished.is_set():
            said = f"Cannot abort an already terminated workflow execution: {execution.state}"
            context.abort(grpc.StatusCode.FAILED_PRECONDITION, said)
        execution.abort(request.cause)
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
        with answering(context):
            return self._engine.get(id)
        raise AssertionError("the call was ended")

    def _node(self, id: Any, context: Any) -> tuple[Execution, NodeRecord]:
        execution = self._execution(id.execution_id, context)
        for record in list(execution.nodes):
            if record.id == id.node_id:
                return execution, record
        context.abort(grpc.StatusCode.NOT_FOUND, f"node {id.node_id} did not run")
        raise AssertionError("the call was ended")


class DataProxy(dataproxy_pb2_grpc.DataProxyServiceServicer):
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


def serve(admin: Admin, proxy: DataProxy) -> tuple[grpc.Server, int]:
    """Start answering on a free port."""
    server = grpc.server(ThreadPoolExecutor(max_workers=16))
    admin_pb2_grpc.add_AdminServiceServicer_to_server(admin, server)
    dataproxy_pb2_grpc.add_DataProxyServiceServicer_to_server(proxy, server)
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    return server, port
