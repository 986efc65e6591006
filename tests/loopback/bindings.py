"""What a node is given: bindings resolved to literals.

A literal that is handed on stays the message it was, so its `hash` travels with it.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping

import msgpack
from flyteidl.core import literals_pb2, types_pb2
from google.protobuf import json_format, struct_pb2

from .records import Failure

START = "start-node"  # whose outputs are the inputs of the workflow

Outputs = Mapping[str, literals_pb2.LiteralMap]  # by node id


def resolve(bindings: Iterable[literals_pb2.Binding], outputs: Outputs) -> literals_pb2.LiteralMap:
    """The literals that a node's (or a workflow's output) bindings stand for."""
    literals = {binding.var: _literal(binding.binding, outputs) for binding in bindings}
    return literals_pb2.LiteralMap(literals=literals)


def promised_nodes(bindings: Iterable[literals_pb2.Binding]) -> set[str]:
    """The ids of the nodes whose outputs the bindings name."""
    return {node for binding in bindings for node in _promised(binding.binding)} - {START, ""}


def _promised(data: literals_pb2.BindingData) -> Iterator[str]:
    match data.WhichOneof("value"):
        case "promise":
            yield data.promise.node_id
        case "collection":
            for part in data.collection.bindings:
                yield from _promised(part)
        case "map":
            for part in data.map.bindings.values():
                yield from _promised(part)


def _literal(data: literals_pb2.BindingData, outputs: Outputs) -> literals_pb2.Literal:
    match data.WhichOneof("value"):
        case "scalar":
            return literals_pb2.Literal(scalar=data.scalar)
        case "promise":
            return _promise(data.promise, outputs)
        case "collection":
            parts = [_literal(part, outputs) for part in data.collection.bindings]
            return literals_pb2.Literal(collection=literals_pb2.LiteralCollection(literals=parts))
        case "map":
            items = {key: _literal(part, outputs) for key, part in data.map.bindings.items()}
            return literals_pb2.Literal(map=literals_pb2.LiteralMap(literals=items))
        case kind:
            raise Failure("UnsupportedBinding", f"a binding of kind {kind} is not resolved here")


def _promise(promise: types_pb2.OutputReference, outputs: Outputs) -> literals_pb2.Literal:
    node = promise.node_id or START
    literals = outputs[node].literals
    if promise.var not in literals:
        raise Failure("PromiseAttributeResolveError", f"node {node} has no output {promise.var}")
    literal = literals[promise.var]
    for step in promise.attr_path:
        literal = _attribute(literal, getattr(step, step.WhichOneof("value")))
    return literal


def _attribute(literal: literals_pb2.Literal, step: str | int) -> literals_pb2.Literal:
    """One step into a list, a map, a dataclass or a pydantic model."""
    try:
        if literal.HasField("collection"):
            return literal.collection.literals[int(step)]
        if literal.HasField("map"):
            return literal.map.literals[str(step)]
        if literal.scalar.HasField("union"):
            return _attribute(literal.scalar.union.value, step)
        if literal.scalar.HasField("binary"):
            return _packed(msgpack.unpackb(literal.scalar.binary.value, strict_map_key=False)[step])
        return _plain(json_format.MessageToDict(literal.scalar.generic)[step])
    except (KeyError, IndexError, TypeError, ValueError) as error:
        message = f"there is no attribute {step!r}: {error}"
        raise Failure("PromiseAttributeResolveError", message) from error


def _packed(value: object) -> literals_pb2.Literal:
    """What lies inside a packed model stays packed, simple values too; flytekit reads both."""
    binary = literals_pb2.Binary(value=msgpack.packb(value), tag="msgpack")
    return literals_pb2.Literal(scalar=literals_pb2.Scalar(binary=binary))


def _plain(value: object) -> literals_pb2.Literal:
    """A value of a protobuf struct, where every number is a float."""
    if isinstance(value, dict):
        generic = json_format.ParseDict(value, struct_pb2.Struct())
        return literals_pb2.Literal(scalar=literals_pb2.Scalar(generic=generic))
    if isinstance(value, list):
        parts = [_plain(part) for part in value]
        return literals_pb2.Literal(collection=literals_pb2.LiteralCollection(literals=parts))
    kind = {bool: "boolean", str: "string_value", int: "integer", float: "float_value"}[type(value)]
    primitive = literals_pb2.Primitive(**{kind: value})
    return literals_pb2.Literal(scalar=literals_pb2.Scalar(primitive=primitive))
