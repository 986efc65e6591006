"""What happened on the cluster: executions, their nodes, and the attempts of those."""

from __future__ import annotations

import threading
import time
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from flyteidl.admin import execution_pb2
from flyteidl.core import (
    catalog_pb2,
    compiler_pb2,
    identifier_pb2,
    literals_pb2,
    workflow_pb2,
)
from flyteidl.core import (
    execution_pb2 as core_pb2,
)

from .pods import Pod
from .policy import Policy

Phase = core_pb2.NodeExecution.Phase
Error = core_pb2.ExecutionError
UNKNOWN, USER, SYSTEM = Error.UNKNOWN, Error.USER, Error.SYSTEM


class Failure(Exception):
    """Why an attempt, a node or an execution failed, as the client is told."""

    def __init__(self, code: str, message: str, *, kind: int = SYSTEM, recoverable: bool = False):
        super().__init__(f"{code}: {message}")
        self.code = code
        self.message = message
        self.kind = kind
        self.recoverable = recoverable
        self.node = ""  # the node of the workflow that failed

    def proto(self) -> core_pb2.ExecutionError:
        return core_pb2.ExecutionError(code=self.code, message=self.message, kind=self.kind)


class Aborted(Failure):
    """Stopped from outside: somebody ended the execution, or another node of it failed."""

    def __init__(self, reason: str):
        super().__init__("NodeAborted", reason)  # seen, Flyte 1.16.8, 2026-11-28


class TimedOut(Failure):
    """All attempts of a node together have had their time; nothing is tried again."""

    def __init__(self, message: str):
        super().__init__("", message, kind=UNKNOWN)


class Cancel:
    """A flag that is also raised when the flag it was made below is."""

    def __init__(self, above: Cancel | None = None):
        self._event = threading.Event()
        self._above = above
        self._reason = ""

    def set(self, reason: str) -> None:
        self._reason = self._reason or reason
        self._event.set()

    @property
    def reason(self) -> str | None:
        """Why to stop; None to go on."""
        if self._event.is_set():
            return self._reason
        return self._above.reason if self._above else None

    def check(self) -> None:
        if (reason := self.reason) is not None:
            raise Aborted(reason)


@dataclass
class Attempt:
    """One try of a task; `number` counts from 0, `started` is when it was queued."""

    number: int
    output_prefix: str
    raw_prefix: str
    checkpoint: str
    previous_checkpoint: str
    interruptible: bool = False
    started: float = field(default_factory=time.time)
    ended: float | None = None
    error: Failure | None = None
    pods: list[Pod] = field(default_factory=list)


@dataclass
class Element:
    """One element of an array node."""

    index: int
    attempts: list[Attempt] = field(default_factory=list)
    cache_status: int = catalog_pb2.CACHE_DISABLED
    cached_from: catalog_pb2.CatalogMetadata | None = None
    error: Failure | None = None

    @property
    def cached(self) -> bool:
        return self.cache_status == catalog_pb2.CACHE_HIT


@dataclass
class NodeRecord:
    """The execution of a node. `node` is what was registered, overrides and all."""

    id: str
    node: workflow_pb2.Node
    parent: str = ""
    inputs: literals_pb2.LiteralMap = field(default_factory=literals_pb2.LiteralMap)
    outputs: literals_pb2.LiteralMap = field(default_factory=literals_pb2.LiteralMap)
    phase: int = Phase.QUEUED
    created: float = field(default_factory=time.time)
    started: float | None = None
    ended: float | None = None
    error: Failure | None = None
    task: identifier_pb2.Identifier | None = None
    policy: Policy | None = None
    attempts: list[Attempt] = field(default_factory=list)
    cache_status: int = catalog_pb2.CACHE_DISABLED
    cached_from: catalog_pb2.CatalogMetadata | None = None
    is_parent: bool = False
    is_array: bool = False
    dynamic: compiler_pb2.CompiledWorkflowClosure | None = None
    launched: identifier_pb2.WorkflowExecutionIdentifier | None = None
    elements: list[Element] = field(default_factory=list)

    @property
    def task_name(self) -> str:
        return self.task.name if self.task else ""

    @property
    def cached(self) -> bool:
        return self.cache_status == catalog_pb2.CACHE_HIT

    @property
    def state(self) -> str:
        return Phase.Name(self.phase)

    @property
    def seconds(self) -> float:
        return (self.ended or time.time()) - (self.started or self.created)

    @property
    def pods(self) -> list[Pod]:
        """Every pod of this node, those of an array node's elements included."""
        attempts = [*self.attempts, *(a for e in self.elements for a in e.attempts)]
        return [pod for attempt in attempts for pod in attempt.pods]

    @contextmanager
    def running(self) -> Iterator[None]:
        """Keep phase, times and error while the body does the work."""
        self.started, self.phase = time.time(), Phase.RUNNING
        try:
            yield
        except Exception as error:
            # Anything but a failure is a defect of this double: told to the client, not hidden.
            defect = Failure("LoopbackDefect", traceback.format_exc())
            self.error = error if isinstance(error, Failure) else defect
            self.phase = _end(self.error)
            self.ended = time.time()
            raise self.error from error.__cause__
        self.ended, self.phase = time.time(), Phase.SUCCEEDED


def _end(failure: Failure) -> int:
    if isinstance(failure, Aborted):
        return int(Phase.ABORTED)
    return int(Phase.TIMED_OUT if isinstance(failure, TimedOut) else Phase.FAILED)


@dataclass
class Execution:
    """One execution of a launch plan or of a single task."""

    id: identifier_pb2.WorkflowExecutionIdentifier
    spec: execution_pb2.ExecutionSpec
    inputs: literals_pb2.LiteralMap
    workflow: compiler_pb2.CompiledWorkflowClosure
    outputs: literals_pb2.LiteralMap = field(default_factory=literals_pb2.LiteralMap)
    phase: int = core_pb2.WorkflowExecution.QUEUED
    created: float = field(default_factory=time.time)
    ended: float | None = None
    error: Failure | None = None
    nodes: list[NodeRecord] = field(default_factory=list)
    cancel: Cancel = field(default_factory=Cancel)
    finished: threading.Event = field(default_factory=threading.Event)

    @property
    def name(self) -> str:
        return str(self.id.name)

    @property
    def succeeded(self) -> bool:
        return self.phase == core_pb2.WorkflowExecution.SUCCEEDED

    @property
    def state(self) -> str:
        return core_pb2.WorkflowExecution.Phase.Name(self.phase)

    @property
    def seconds(self) -> float:
        return (self.ended or time.time()) - self.created

    @property
    def pods(self) -> list[Pod]:
        return [pod for node in self.nodes for pod in node.pods]

    def node(self, id: str) -> NodeRecord:
        """The record of a node by its id (`n0`; `n2-0-dn1` for a child of attempt 0 of `n2`)."""
        return next(node for node in self.nodes if node.id == id)

    def of_task(self, name: str) -> list[NodeRecord]:
        """The records whose task's name ends with `name`."""
        return [node for node in self.nodes if node.task_name.split(".")[-1] == name]
