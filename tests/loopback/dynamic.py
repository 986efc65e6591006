"""Dynamic tasks: the workflow that one asks for, by the futures.pb that it wrote."""

from __future__ import annotations

from flyteidl.core import (
    compiler_pb2,
    dynamic_job_pb2,
    identifier_pb2,
    interface_pb2,
    tasks_pb2,
    workflow_pb2,
)

from .registry import Registry


def dynamic_closure(
    registry: Registry, template: tasks_pb2.TaskTemplate, spec: dynamic_job_pb2.DynamicJobSpec
) -> compiler_pb2.CompiledWorkflowClosure:
    """A workflow without inputs whose outputs are those of the task.

    The tasks in it are those that the pod wrote down: they may differ from what is registered.
    """
    id = identifier_pb2.Identifier()
    id.CopyFrom(template.id)
    id.resource_type = identifier_pb2.WORKFLOW
    workflow = workflow_pb2.WorkflowTemplate(
        id=id,
        interface=interface_pb2.TypedInterface(outputs=template.interface.outputs),
        nodes=spec.nodes,
        outputs=spec.outputs,
    )
    return registry.closure_of(workflow, spec.subworkflows, spec.tasks)
