"""Records as the messages that FlyteAdmin answers with."""

from __future__ import annotations

from flyteidl.admin import (
    execution_pb2,
    launch_plan_pb2,
    node_execution_pb2,
    task_execution_pb2,
    task_pb2,
    workflow_pb2,
)
from flyteidl.core import compiler_pb2, identifier_pb2, interface_pb2
from flyteidl.core import execution_pb2 as core_pb2
from flyteidl.event import event_pb2
from google.protobuf.duration_pb2 import Duration
from google.protobuf.timestamp_pb2 import Timestamp

from .records import Aborted, Attempt, Element, Execution, NodeRecord
from .registry import Key, Registry

TaskPhase = core_pb2.TaskExecution


def stamp(seconds: float) -> Timestamp:
    return Timestamp(seconds=int(seconds), nanos=int(seconds % 1 * 1e9))


def duration(seconds: float) -> Duration:
    return Duration(seconds=int(seconds), nanos=int(seconds % 1 * 1e9))


def identifier(kind: int, key: Key) -> identifier_pb2.Identifier:
    project, domain, name, version = key
    return identifier_pb2.Identifier(
        resource_type=kind, project=project, domain=domain, name=name, version=version
    )


def task_view(spec: task_pb2.TaskSpec, created: float) -> task_pb2.Task:
    compiled = compiler_pb2.CompiledTask(template=spec.template)
    closure = task_pb2.TaskClosure(compiled_task=compiled, created_at=stamp(created))
    return task_pb2.Task(id=spec.template.id, closure=closure)


def workflow_view(
    closure: compiler_pb2.CompiledWorkflowClosure, created: float
) -> workflow_pb2.Workflow:
    return workflow_pb2.Workflow(
        id=closure.primary.template.id,
        closure=workflow_pb2.WorkflowClosure(compiled_workflow=closure, created_at=stamp(created)),
    )


def launch_plan_view(registry: Registry, key: Key) -> launch_plan_pb2.LaunchPlan:
    id, spec = registry.launch_plans.specs[key]
    workflow = registry.workflows.get(spec.workflow_id).template
    active = registry.active.get(key[:3]) == key
    state = launch_plan_pb2.ACTIVE if active else launch_plan_pb2.INACTIVE
    return launch_plan_pb2.LaunchPlan(
        id=id,
        spec=spec,
        closure=launch_plan_pb2.LaunchPlanClosure(
            state=state,
            expected_inputs=interface_pb2.ParameterMap(parameters=registry.expected_inputs(spec)),
            expected_outputs=workflow.interface.outputs,
            created_at=stamp(registry.launch_plans.created[key]),
        ),
    )


def execution_view(execution: Execution) -> execution_pb2.Execution:
    closure = execution_pb2.ExecutionClosure(
        computed_inputs=execution.inputs,
        phase=execution.phase,
        created_at=stamp(execution.created),
        started_at=stamp(execution.created),
        updated_at=stamp(execution.ended or execution.created),
        duration=duration(execution.seconds),
        workflow_id=execution.workflow.primary.template.id,
    )
    if isinstance(execution.error, Aborted) and execution.ended:
        closure.abort_metadata.cause = execution.error.message
    elif execution.error and execution.ended:
        closure.error.CopyFrom(execution.error.proto())
    return execution_pb2.Execution(id=execution.id, spec=execution.spec, closure=closure)


def node_id(execution: Execution, record: NodeRecord) -> identifier_pb2.NodeExecutionIdentifier:
    return identifier_pb2.NodeExecutionIdentifier(node_id=record.id, execution_id=execution.id)


def node_view(execution: Execution, record: NodeRecord) -> node_execution_pb2.NodeExecution:
    phase = record.phase
    closure = node_execution_pb2.NodeExecutionClosure(
        phase=phase,
        created_at=stamp(record.created),
        started_at=stamp(record.started or record.created),
        updated_at=stamp(record.ended or record.created),
        duration=duration(record.seconds),
    )
    if record.error and record.ended:
        closure.error.CopyFrom(record.error.proto())
    if record.launched:
        closure.workflow_node_metadata.executionId.CopyFrom(record.launched)
    elif record.task:
        closure.task_node_metadata.cache_status = record.cache_status
        if record.cached_from:
            closure.task_node_metadata.catalog_key.CopyFrom(record.cached_from)
        if record.attempts:
            closure.task_node_metadata.checkpoint_uri = record.attempts[-1].checkpoint
    return node_execution_pb2.NodeExecution(
        id=node_id(execution, record),
        closure=closure,
        metadata=node_execution_pb2.NodeExecutionMetaData(
            spec_node_id=record.node.id,
            is_parent_node=record.is_parent,
            is_dynamic=record.dynamic is not None,
            is_array=record.is_array,
        ),
    )


def task_views(execution: Execution, record: NodeRecord) -> list[task_execution_pb2.TaskExecution]:
    """One for each attempt; the elements of an array node are told inside a single one."""
    if record.is_array:
        return [_array_view(execution, record)]
    return [_attempt_view(execution, record, attempt) for attempt in record.attempts]


def _task_id(
    execution: Execution, record: NodeRecord, attempt: int
) -> identifier_pb2.TaskExecutionIdentifier:
    return identifier_pb2.TaskExecutionIdentifier(
        task_id=record.task,
        node_execution_id=node_id(execution, record),
        retry_attempt=attempt,
    )


def _attempt_view(
    execution: Execution, record: NodeRecord, attempt: Attempt
) -> task_execution_pb2.TaskExecution:
    closure = task_execution_pb2.TaskExecutionClosure(
        phase=_phase(attempt),
        created_at=stamp(attempt.started),
        started_at=stamp(attempt.started),
        updated_at=stamp(attempt.ended or attempt.started),
        duration=duration((attempt.ended or attempt.started) - attempt.started),
        logs=[core_pb2.TaskLog(uri=pod.log.as_uri(), name=pod.name) for pod in attempt.pods],
    )
    if attempt.error:
        closure.error.CopyFrom(attempt.error.proto())
    return task_execution_pb2.TaskExecution(
        id=_task_id(execution, record, attempt.number), closure=closure, is_parent=record.is_parent
    )


def _array_view(execution: Execution, record: NodeRecord) -> task_execution_pb2.TaskExecution:
    closure = task_execution_pb2.TaskExecutionClosure(
        phase=core_pb2.TaskExecution.Phase.Value(_array_phase(record)),
        created_at=stamp(record.created),
        started_at=stamp(record.started or record.created),
        updated_at=stamp(record.ended or record.created),
        duration=duration(record.seconds),
        metadata=event_pb2.TaskExecutionMetadata(
            external_resources=[_element_view(element) for element in list(record.elements)]
        ),
    )
    if record.error and record.ended:
        closure.error.CopyFrom(record.error.proto())
    return task_execution_pb2.TaskExecution(id=_task_id(execution, record, 0), closure=closure)


def _element_view(element: Element) -> event_pb2.ExternalResourceInfo:
    phase = _phase(element.attempts[-1]) if element.attempts else TaskPhase.UNDEFINED
    if not element.attempts and element.cached:
        phase = TaskPhase.SUCCEEDED
    return event_pb2.ExternalResourceInfo(
        index=element.index,
        retry_attempt=max(len(element.attempts) - 1, 0),
        phase=phase,
        cache_status=element.cache_status,
    )


def _phase(attempt: Attempt) -> int:
    if attempt.error:
        aborted = isinstance(attempt.error, Aborted)
        return int(TaskPhase.ABORTED if aborted else TaskPhase.FAILED)
    return int(TaskPhase.SUCCEEDED if attempt.ended else TaskPhase.RUNNING)


def _array_phase(record: NodeRecord) -> str:
    known = ("SUCCEEDED", "FAILED", "ABORTED")
    if record.state == "TIMED_OUT":
        return "FAILED"
    return record.state if record.state in known else "RUNNING"
