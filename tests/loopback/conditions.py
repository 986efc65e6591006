"""Conditions of branch nodes."""

from __future__ import annotations

import operator
from collections.abc import Callable
from typing import Any

from flyteidl.core import condition_pb2, literals_pb2, workflow_pb2

from .records import USER, Failure

Comparison, Conjunction = condition_pb2.ComparisonExpression, condition_pb2.ConjunctionExpression
OPERATORS: dict[int, Callable[[Any, Any], bool]] = {
    Comparison.EQ: operator.eq,
    Comparison.NEQ: operator.ne,
    Comparison.GT: operator.gt,
    Comparison.GTE: operator.ge,
    Comparison.LT: operator.lt,
    Comparison.LTE: operator.le,
}


def chosen(block: workflow_pb2.IfElseBlock, inputs: literals_pb2.LiteralMap) -> workflow_pb2.Node:
    """The node of the first condition that holds."""
    for case in (block.case, *block.other):
        if _holds(case.condition, inputs):
            return case.then_node
    if block.HasField("else_node"):
        return block.else_node
    raise Failure("NoBranchTaken", block.error.message or "no branch was taken", kind=USER)


def _holds(condition: condition_pb2.BooleanExpression, inputs: literals_pb2.LiteralMap) -> bool:
    if condition.HasField("comparison"):
        comparison = condition.comparison
        left, right = (
            _value(side, inputs) for side in (comparison.left_value, comparison.right_value)
        )
        return OPERATORS[comparison.operator](left, right)
    both = condition.conjunction
    sides = [_holds(side, inputs) for side in (both.left_expression, both.right_expression)]
    return all(sides) if both.operator == Conjunction.AND else any(sides)


def _value(operand: condition_pb2.Operand, inputs: literals_pb2.LiteralMap) -> object:
    match operand.WhichOneof("val"):
        case "var":
            scalar = inputs.literals[operand.var].scalar
        case "scalar":
            scalar = operand.scalar
        case _:
            return _primitive(operand.primitive)
    return None if scalar.HasField("none_type") else _primitive(scalar.primitive)


def _primitive(primitive: literals_pb2.Primitive) -> object:
    return getattr(primitive, primitive.WhichOneof("value"))
