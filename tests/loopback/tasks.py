"""A task at a node: found in the catalog, or tried until it succeeds or may not be retried."""

from __future__ import annotations

import itertools
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from flyteidl.core import catalog_pb2, dynamic_job_pb2, identifier_pb2, literals_pb2, tasks_pb2
from flyteidl.core.execution_pb2 import ExecutionError

from .catalog import Catalog, catalog_key, entry_of
from .distributed import JOB, Job, delete, replicas
from .outcome import outcome
from .pods import Pod, PodRunner, merged
from .policy import Policy
from .records import USER, Aborted, Attempt, Cancel, Element, Execution, Failure, NodeRecord
from .secrets import secret_variables
from .store import Store

POLL_SECONDS = 0.05

Expand = Callable[[dynamic_job_pb2.DynamicJobSpec, int], literals_pb2.LiteralMap]


@dataclass(frozen=True)
class Work:
    """A task to run at a node, or for one element of an array node."""

    execution: Execution
    cancel: Cancel
    node: str
    template: tasks_pb2.TaskTemplate
    policy: Policy
    inputs: literals_pb2.LiteralMap  # what the catalog compares
    inputs_address: str  # what the pod reads
    record: NodeRecord | Element
    expand: Expand  # runs what a dynamic task asks for
    index: int | None = None
    variables: Mapping[str, str] = field(default_factory=dict)

    @property
    def path(self) -> str:
        """Where its files go, below the execution's."""
        return self.node if self.index is None else f"{self.node}/{self.index}"


@dataclass
class TaskRunner:
    """Runs tasks in pods, `slots` of them at a time; the replicas of one task count as one."""

    store: Store
    catalog: Catalog
    pods: PodRunner
    folder: Path
    slots: threading.Semaphore
    secrets: Mapping[str, str]
    variables: Mapping[str, str]
    _numbers: Iterator[int] = field(default_factory=itertools.count)

    def run(self, work: Work) -> literals_pb2.LiteralMap:
        """The outputs of the task; its record is kept up to date on the way."""
        policy = work.policy
        if not policy.cacheable:
            return self._tried(work)
        key = catalog_key(work.template, policy.cache_version, work.inputs, policy.cache_ignored)
        with self.catalog.reserved(key, policy.cache_serializable):
            entry = self.catalog.entries.get(key)
            if entry and not work.execution.spec.overwrite_cache:
                work.record.cache_status = catalog_pb2.CACHE_HIT
                work.record.cached_from = entry.metadata
                return entry.outputs
            work.record.cache_status = catalog_pb2.CACHE_MISS
            outputs = self._tried(work)
            entry = entry_of(work.template, key, outputs, task_execution_id(work))
            self.catalog.entries[key] = entry
            work.record.cache_status = catalog_pb2.CACHE_POPULATED
            work.record.cached_from = entry.metadata
            return outputs

    def _tried(self, work: Work) -> literals_pb2.LiteralMap:
        attempts = work.record.attempts
        tries = work.policy.retries + 1
        previous = ""
        for number in range(tries):
            attempt = self._begun(work, number, previous)
            attempts.append(attempt)
            try:
                return self._once(work, attempt)
            except Failure as failure:
                attempt.error = failure
                if isinstance(failure, Aborted) or not failure.recoverable:
                    raise
                last = failure
            finally:
                attempt.ended = time.time()
            previous = attempt.checkpoint
        raise _exhausted(last, tries)

    def _begun(self, work: Work, number: int, previous: str) -> Attempt:
        id, spec = work.execution.id, work.execution.spec
        own = f"{id.project}-{id.domain}-{id.name}/{work.path}"
        raw_root = spec.raw_output_data_config.output_location_prefix
        raw = f"{raw_root.rstrip('/') or self.store.address('raw')}/{own}/{number}"
        return Attempt(
            number=number,
            output_prefix=self.store.address(f"metadata/{own}/data/{number}"),
            raw_prefix=raw,
            checkpoint=f"{raw}/_flytecheckpoints",
            previous_checkpoint=previous,
        )

    def _once(self, work: Work, attempt: Attempt) -> literals_pb2.LiteralMap:
        for index, variables in replicas(work.template):
            pod = self._pod(work, attempt, work.index if index is None else index, variables)
            attempt.pods.append(pod)
        pods = attempt.pods
        if work.template.type == JOB:
            self._run_job(work, attempt)
            pods = []  # how the job ended says how they did
        else:
            with self._slot(work.cancel):
                self._run_pods(work, pods)
        made = outcome(self.store, attempt.output_prefix, work.template, pods)
        if isinstance(made, literals_pb2.LiteralMap):
            return made
        return work.expand(made, attempt.number)

    def _run_job(self, work: Work, attempt: Attempt) -> None:
        """Run it until it succeeds; that of the attempt before is deleted.

        Raises:
            Failure: it failed, or the time is over.
            Aborted: somebody stopped it.
        """
        for before in work.record.attempts[-2:-1]:
            delete(self.pods, before.pods)
        limit, name = work.policy.timeout, f"{work.execution.name}-{work.node}-{attempt.number}"

        def overdue() -> None:
            if limit and time.time() - attempt.pods[0].started > limit:
                raise _late(limit)

        with self._slot(work.cancel):
            Job(name, work.template, self.pods, attempt.pods).run(work.cancel, overdue)

    def _pod(
        self, work: Work, attempt: Attempt, index: int | None, variables: Mapping[str, str]
    ) -> Pod:
        parts = (work.execution.name, work.node, index, attempt.number, next(self._numbers))
        name = "-".join(str(part) for part in parts if part is not None)
        folder = self.folder / "pods" / name
        template = work.template
        return Pod(
            node=work.node,
            task=template.id.name,
            attempt=attempt.number,
            index=index,
            arguments=_arguments(template, work.inputs_address, attempt),
            variables=merged(
                {pair.key: pair.value for pair in template.container.env},
                {pair.key: pair.value for pair in work.execution.spec.envs.values},
                _execution_variables(work, attempt.number),
                self.store.environment(),
                self.variables,
                secret_variables(template, self.secrets, folder / "secrets"),
                work.variables,
                variables,
            ),
            image=work.policy.image,
            folder=folder,
            log=self.folder / "logs" / f"{name}.log",
            checkpoint=attempt.checkpoint,
            list_keys=self.store.list,
        )

    def _run_pods(self, work: Work, pods: list[Pod]) -> None:
        """Run them side by side to the end, or until one fails, the time is over or it is stopped.

        Raises:
            Failure: the time is over.
            Aborted: somebody stopped it.
        """
        limit = work.policy.timeout
        try:
            for pod in pods:
                self.pods.start(pod)
            while not all([self.pods.poll(pod) for pod in pods]):
                work.cancel.check()
                if limit and time.time() - pods[0].started > limit:
                    raise _late(limit)
                if any(pod.exit_code for pod in pods):
                    return
                time.sleep(POLL_SECONDS)
        finally:
            for pod in pods:
                self.pods.end(pod)

    @contextmanager
    def _slot(self, cancel: Cancel) -> Iterator[None]:
        while not self.slots.acquire(timeout=POLL_SECONDS * 4):
            cancel.check()
        try:
            cancel.check()
            yield
        finally:
            self.slots.release()


def task_execution_id(work: Work) -> identifier_pb2.TaskExecutionIdentifier:
    """The last attempt of a task at its node."""
    node = identifier_pb2.NodeExecutionIdentifier(node_id=work.node, execution_id=work.execution.id)
    return identifier_pb2.TaskExecutionIdentifier(
        task_id=work.template.id,
        node_execution_id=node,
        retry_attempt=max(len(work.record.attempts) - 1, 0),
    )


def _arguments(
    template: tasks_pb2.TaskTemplate, inputs_address: str, attempt: Attempt
) -> list[str]:
    values = {
        "{{.input}}": inputs_address,
        "{{.outputPrefix}}": attempt.output_prefix,
        "{{.rawOutputDataPrefix}}": attempt.raw_prefix,
        "{{.checkpointOutputPrefix}}": attempt.checkpoint,
        "{{.prevCheckpointPrefix}}": attempt.previous_checkpoint,
    }
    container = template.container
    return [values.get(part, part) for part in (*container.command, *container.args)]


def _execution_variables(work: Work, number: int) -> dict[str, str]:
    """What a pod is told about itself, under the names that Flyte's pods know them by."""
    execution, task = work.execution.id, work.template.id
    workflow = work.execution.workflow.primary.template.id
    variables = {
        "FLYTE_INTERNAL_EXECUTION_ID": execution.name,
        "FLYTE_INTERNAL_EXECUTION_PROJECT": execution.project,
        "FLYTE_INTERNAL_EXECUTION_DOMAIN": execution.domain,
        "FLYTE_INTERNAL_EXECUTION_WORKFLOW": ":".join(
            (workflow.project, workflow.domain, workflow.name)
        ),
        "FLYTE_ATTEMPT_NUMBER": str(number),
    }
    for prefix in ("FLYTE_INTERNAL_TASK_", "FLYTE_INTERNAL_"):
        for name in ("project", "domain", "name", "version"):
            variables[prefix + name.upper()] = getattr(task, name)
    return variables


def _late(limit: float) -> Failure:
    message = f"task execution timeout [{limit:g}s] expired"
    return Failure("TimeoutExpired", message, kind=USER, recoverable=True)


def _exhausted(failure: Failure, tries: int) -> Failure:
    """The last error in Propeller's words; nothing tries again, a dynamic task above it neither."""
    kind = ExecutionError.ErrorKind.Name(failure.kind)
    message = f"[{tries}/{tries}] currentAttempt done. Last Error: {kind}::{failure.message}"
    return Failure(f"RetriesExhausted|{failure.code}", message, kind=USER)
