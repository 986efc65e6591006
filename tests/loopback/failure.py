"""The failure node of a workflow (`@workflow(on_failure=…)`)."""

from __future__ import annotations

from flyteidl.core import interface_pb2, literals_pb2, types_pb2

from .records import Failure


def with_error(
    given: literals_pb2.LiteralMap,
    interface: interface_pb2.TypedInterface,
    failure: Failure,
    node: str,
) -> literals_pb2.LiteralMap:
    """The failure node's inputs, with the error where its task wants one.

    The node was registered with None bound there; a task that wants no error is left alone.

    Args:
        node: the id of the failure node, which Flyte gives as that of the node that failed (read,
            1.16.8: `ResolveOnFailureNodeInput` is called with it).
    """
    error = types_pb2.Error(failed_node_id=node, message=failure.message)
    literals = dict(given.literals)
    for name, variable in interface.inputs.variables.items():
        if literal := _error_literal(error, variable.type):
            literals[name] = literal
    return literals_pb2.LiteralMap(literals=literals)


def _error_literal(
    error: types_pb2.Error, wanted: types_pb2.LiteralType
) -> literals_pb2.Literal | None:
    literal = literals_pb2.Literal(scalar=literals_pb2.Scalar(error=error))
    if wanted.simple == types_pb2.ERROR:
        return literal
    for variant in wanted.union_type.variants:
        if variant.simple == types_pb2.ERROR:
            union = literals_pb2.Union(value=literal, type=variant)
            return literals_pb2.Literal(scalar=literals_pb2.Scalar(union=union))
    return None
