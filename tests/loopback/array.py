"""Array nodes (`map_task`): one pod for each element of the lists that come in.

Every pod reads the same inputs, whole lists, and finds its element by an index variable. An element
has attempts of its own, by the same rules as any task. Seen, Flyte 1.16.8, 2026-11-28.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

from flyteidl.core import literals_pb2, tasks_pb2, workflow_pb2

from .records import UNKNOWN, Aborted, Cancel, Element, Failure, NodeRecord, TimedOut

INDEX_VARIABLE = "FLYTE_K8S_ARRAY_INDEX"

RunElement = Callable[[Element, literals_pb2.LiteralMap, Cancel], literals_pb2.LiteralMap]


def index_variables(index: int) -> dict[str, str]:
    return {"BATCH_JOB_ARRAY_INDEX_VAR_NAME": INDEX_VARIABLE, INDEX_VARIABLE: str(index)}


def run_array(
    array: workflow_pb2.ArrayNode,
    template: tasks_pb2.TaskTemplate,
    record: NodeRecord,
    above: Cancel,
    run_element: RunElement,
) -> literals_pb2.LiteralMap:
    """Run all elements, no more at a time than the node allows; returns their outputs as lists.

    Raises:
        Failure: more elements failed than may.
    """
    each = _inputs_of_each(array, record.inputs)
    elements = record.elements
    elements.extend(Element(index) for index in range(len(each)))
    cancel = Cancel(above)
    may_fail = len(each) - _must_succeed(array, len(each))

    def run(index: int) -> literals_pb2.LiteralMap | None:
        element = elements[index]
        try:
            cancel.check()
            return run_element(element, each[index], cancel)
        except Failure as failure:
            element.error = failure
            if sum(element.error is not None for element in elements) > may_fail:
                cancel.set(f"element {index} failed")
            return None

    with ThreadPoolExecutor(max_workers=array.parallelism or len(each) or 1) as threads:
        outputs = list(threads.map(run, range(len(each))))
    above.check()
    failed = [element for element in elements if element.error]
    if len(failed) > may_fail:
        raise _failed(failed)
    return _collected(template, outputs)


def _inputs_of_each(
    array: workflow_pb2.ArrayNode, inputs: literals_pb2.LiteralMap
) -> list[literals_pb2.LiteralMap]:
    """What each element is made from: bound inputs as they are, one of every list."""
    lists = {
        name: literal.collection.literals
        for name, literal in inputs.literals.items()
        if literal.HasField("collection") and name not in array.bound_inputs
    }
    sizes = {len(values) for values in lists.values()}
    if len(sizes) != 1:
        message = f"an array node needs lists of one length, got {sorted(sizes)}"
        raise Failure("InvalidArrayLength", message)
    (size,) = sizes
    bound = {name: value for name, value in inputs.literals.items() if name not in lists}
    return [
        literals_pb2.LiteralMap(
            literals=bound | {name: values[index] for name, values in lists.items()}
        )
        for index in range(size)
    ]


def _must_succeed(array: workflow_pb2.ArrayNode, size: int) -> int:
    match array.WhichOneof("success_criteria"):
        case "min_successes":
            return int(array.min_successes)
        case "min_success_ratio":
            return math.ceil(array.min_success_ratio * size)
    return size


def _failed(failed: list[Element]) -> Failure:
    """What the node fails with: its elements' messages, with the numbers of those that have each.

    Others that were stopped because of them say nothing, nor does an element whose time is over
    (read, 1.16.8: `errorcollector`, and it has no error then). It has no code.
    """
    elements: dict[str, list[int]] = {}
    for element in failed:
        if element.error and not isinstance(element.error, Aborted | TimedOut):
            elements.setdefault(element.error.message, []).append(element.index)
    said = (f"{_ranges(numbers)}: {message}\n" for message, numbers in sorted(elements.items()))
    return Failure("", "".join(said), kind=UNKNOWN)


def _ranges(numbers: list[int]) -> str:
    """`[0-1][3]` for 0, 1 and 3."""
    found: list[list[int]] = []
    for number in sorted(numbers):
        if found and found[-1][-1] == number - 1:
            found[-1].append(number)
        else:
            found.append([number])
    return "".join(f"[{a[0]}]" if len(a) == 1 else f"[{a[0]}-{a[-1]}]" for a in found)


def _collected(
    template: tasks_pb2.TaskTemplate, outputs: list[literals_pb2.LiteralMap | None]
) -> literals_pb2.LiteralMap:
    """One list for each output; None where an element was allowed to fail."""
    nothing = literals_pb2.Literal(scalar=literals_pb2.Scalar(none_type=literals_pb2.Void()))
    return literals_pb2.LiteralMap(
        literals={
            name: literals_pb2.Literal(
                collection=literals_pb2.LiteralCollection(
                    literals=[each.literals[name] if each else nothing for each in outputs]
                )
            )
            for name in template.interface.outputs.variables
        }
    )
