"""A graph of nodes: each runs once those before it are done."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait

from flyteidl.core import literals_pb2, workflow_pb2

from .bindings import START, Outputs, promised_nodes, resolve
from .records import Aborted, Cancel, Failure
from .registry import branches

RunNode = Callable[[workflow_pb2.Node, Outputs, Cancel], literals_pb2.LiteralMap]
GO_ON = workflow_pb2.WorkflowMetadata.FAIL_AFTER_EXECUTABLE_NODES_COMPLETE
SYSTEM_NODES = (START, "end-node", "")


def run_graph(
    template: workflow_pb2.WorkflowTemplate,
    inputs: literals_pb2.LiteralMap,
    above: Cancel,
    run_node: RunNode,
) -> literals_pb2.LiteralMap:
    """Run all nodes of a workflow; returns its outputs.

    When a node fails the others are stopped, unless the workflow's policy is to go on with those
    that can still run.

    Raises:
        Failure: of the first node that failed; its `node` says which.
    """
    cancel = Cancel(above)
    pending = {node.id: node for node in template.nodes if node.id not in SYSTEM_NODES}
    outputs = {START: inputs}
    running: dict[Future[literals_pb2.LiteralMap], str] = {}
    failure: Failure | None = None
    with ThreadPoolExecutor(max_workers=len(pending) or 1) as threads:
        while True:
            for node in [node for node in pending.values() if _upstream(node) <= outputs.keys()]:
                del pending[node.id]
                running[threads.submit(run_node, node, dict(outputs), cancel)] = node.id
            if not running:
                break
            for done in wait(running, return_when=FIRST_COMPLETED).done:
                id = running.pop(done)
                try:
                    outputs[id] = done.result()
                except Failure as error:
                    failure = _first(failure, error, id)
                    if template.metadata.on_failure != GO_ON:
                        pending.clear()
                        cancel.set(f"node {id} failed")
    if failure:
        raise failure
    above.check()
    if pending:
        raise Failure("NodesNeverReady", f"these wait for each other: {', '.join(pending)}")
    return resolve(template.outputs, outputs)


def _first(failure: Failure | None, error: Failure, id: str) -> Failure:
    """The failure to tell: the first, and one that was not only stopped by it."""
    if failure is None or (isinstance(failure, Aborted) and not isinstance(error, Aborted)):
        error.node = id
        return error
    return failure


def _upstream(node: workflow_pb2.Node) -> set[str]:
    """The ids of the nodes that come before, by order and by what they hand over."""
    ids = {*node.upstream_node_ids} | promised_nodes(node.inputs)
    if node.WhichOneof("target") == "branch_node":
        for inner in branches(node):
            ids |= _upstream(inner)
    return ids - {*SYSTEM_NODES}
