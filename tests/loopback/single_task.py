"""A task that is run by itself."""

from __future__ import annotations

from flyteidl.core import (
    compiler_pb2,
    identifier_pb2,
    interface_pb2,
    literals_pb2,
    tasks_pb2,
    workflow_pb2,
)

from .bindings import START


def parameters_of(template: tasks_pb2.TaskTemplate) -> dict[str, interface_pb2.Parameter]:
    """All inputs have to be given: a task has no launch plan that knows defaults."""
    return {
        name: interface_pb2.Parameter(var=variable, required=True)
        for name, variable in template.interface.inputs.variables.items()
    }


def workflow_of(template: tasks_pb2.TaskTemplate) -> compiler_pb2.CompiledWorkflowClosure:
    """The workflow of one node that Flyte makes for a single task.

    Of what the template says, the node has the retries (read, 1.16.8: `single_task_execution.go`).
    """

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
        metadata=workflow_pb2.NodeMetadata(name="n0", retries=template.metadata.retries),
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
