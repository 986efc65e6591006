"""A task at a node: found in the catalog, or tried until it succeeds or may not be retried.

Time is limited by what Flyte does with `timeout`, seen, 1.16.8, 2026-11-28: an attempt has it from
when it is queued, so one that waited that long for a machine has timed out without running, and
all attempts of a node together have twice of it, whatever retries are left.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path

from flyteidl.core import catalog_pb2, dynamic_job_pb2, identifier_pb2, literals_pb2, tasks_pb2

from .attempts import Rules, Tally
from .catalog import Catalog, catalog_key, entry_of
from .distributed import cleans_up, has_succeeded, replicas
from .grace import deleted, deleted_beside, left_alone
from .limits import given, write_cgroup
from .outcome import deleted_object, outcome
from .pods import Pod, PodRunner, merged
from .policy import Policy
from .records import (
    USER,
    Aborted,
    Attempt,
    Cancel,
    Element,
    Execution,
    Failure,
    GivenUp,
    NodeRecord,
    TimedOut,
)
from .secrets import secret_variables
from .store import Store

POLL_SECONDS = 0.05

Expand = Callable[[dynamic_job_pb2.DynamicJobSpec, int], literals_pb2.LiteralMap]
#: How many seconds a pod waits for a machine, by its task's name and the number of its attempt.
Waits = Callable[[str, int], float]


def at_once(task: str, attempt: int) -> float:
    return 0.0


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
    previous: str = ""  # checkpoint of the same node in the execution that this one recovers
    variables: Mapping[str, str] = field(default_factory=dict)

    @property
    def path(self) -> str:
        """Where its files go, below the execution's."""
        return self.node if self.index is None else f"{self.node}/{self.index}"

    def name(self, attempt: int) -> str:
        """The name of an attempt's pod: seen, Flyte 1.16.8, 2026-11-28."""
        element = "" if self.index is None else f"-0-n{self.index}"
        return f"{self.execution.name}-{self.node}{element}-{attempt}"

    @property
    def namespace(self) -> str:
        return f"{self.execution.id.project}-{self.execution.id.domain}"


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
    rules: Rules
    waits: Waits
    limits: Mapping[str, str] = field(default_factory=dict)
    training_operator: bool = True

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
        attempts, tally = work.record.attempts, Tally(self.rules, work.policy)
        limit, queued = work.policy.timeout, time.time()
        end = queued + 2 * limit if limit else None
        previous = work.previous
        while True:
            attempt = self._begun(work, tally, previous)
            attempts.append(attempt)
            try:
                return self._once(work, attempt, end)
            except (Aborted, TimedOut) as failure:
                attempt.error = failure
                deleted(self.pods, attempt.pods)
                raise
            except Failure as failure:
                attempt.error = failure
                last = tally.final(failure)
                self._leave(work, attempt.pods, tried_again=last is None)
                if last is not None:
                    raise last from None
            finally:
                attempt.ended = time.time()
            previous = attempt.checkpoint

    def _leave(self, work: Work, pods: list[Pod], *, tried_again: bool) -> None:
        """Part from the pods of an attempt that is over and still run.

        The PyTorchJob of the last attempt stays as it is, and its workers run on, unless its
        policy is to clean up: seen, Flyte 1.16.8 and operator 1.9.3, 2026-11-28.
        """
        if work.template.type == "pytorch" and not tried_again and not cleans_up(work.template):
            left_alone(self.pods, pods)
        else:
            deleted_beside(self.pods, pods)

    def _begun(self, work: Work, tally: Tally, previous: str) -> Attempt:
        id, spec, number = work.execution.id, work.execution.spec, tally.failed
        own = f"{id.project}-{id.domain}-{id.name}/{work.path}"
        root = spec.raw_output_data_config.output_location_prefix or self.store.address("raw")
        name = work.name(number)
        shard = sha256(name.encode()).hexdigest()[:2]
        raw = f"{root.rstrip('/')}/{shard}/{name}"
        return Attempt(
            number=number,
            output_prefix=self.store.address(f"metadata/{own}/data/{number}"),
            raw_prefix=raw,
            checkpoint=f"{raw}/_flytecheckpoints",
            previous_checkpoint=previous,
            interruptible=tally.interruptible,
        )

    def _once(self, work: Work, attempt: Attempt, end: float | None) -> literals_pb2.LiteralMap:
        if work.template.type == "pytorch" and not self.training_operator:
            id = work.execution.workflow.primary.template.id
            name = f"{id.project}:{id.domain}:{id.name}"
            raise GivenUp(name, 'no matches for kind "PyTorchJob" in version "kubeflow.org/v1"')
        for replica, variables in replicas(work.template):
            attempt.pods.append(self._pod(work, attempt, replica, variables))

        def check() -> None:
            work.cancel.check()
            _check_time(work.policy.timeout, attempt.started, end)

        ready = attempt.started + self.waits(work.template.id.name, attempt.number)
        while time.time() < ready:
            check()
            time.sleep(POLL_SECONDS)
        with self._slot(check):
            self._run_pods(work, attempt.pods, check)
        made = outcome(self.store, attempt.output_prefix, work.template, attempt.pods)
        self._leave(work, attempt.pods, tried_again=False)
        if isinstance(made, literals_pb2.LiteralMap):
            return made
        return work.expand(made, attempt.number)

    def _pod(
        self, work: Work, attempt: Attempt, replica: int | None, variables: Mapping[str, str]
    ) -> Pod:
        worker = "" if replica is None else f"-worker-{replica}"
        name = work.name(attempt.number) + worker
        folder = self.folder / "pods" / name
        template, container = work.template, work.policy.container
        return Pod(
            node=work.node,
            task=template.id.name,
            attempt=attempt.number,
            index=work.index if replica is None else replica,
            arguments=_arguments(container.arguments, work.inputs_address, attempt),
            variables=merged(
                container.variables,
                {pair.key: pair.value for pair in work.execution.spec.envs.values},
                _execution_variables(work, attempt.number),
                {"HOSTNAME": name},
                self.store.environment(),
                self.variables,
                secret_variables(template, self.secrets, folder / "secrets"),
                work.variables,
                variables,
                self._cgroup(work, folder / "cgroup"),
            ),
            image=work.policy.image,
            folder=folder,
            log=self.folder / "logs" / f"{name}.log",
            checkpoint=attempt.checkpoint,
            list_keys=self.store.list,
            container=container.name,
            interruptible=attempt.interruptible,
            grace=container.grace,
        )

    def _cgroup(self, work: Work, folder: Path) -> dict[str, str]:
        """Where a pod reads what it was given; without limits that is all there is.

        Pods that are processes would otherwise read the cgroup of this test.
        """
        allowed = given(work.template, work.policy.resources, self.limits) if self.limits else {}
        write_cgroup(folder, allowed)
        return {"SIQVL_CGROUP": str(folder)}

    def _run_pods(self, work: Work, pods: list[Pod], check: Callable[[], None]) -> None:
        """Run them side by side to the end, or until one fails or is deleted, or is enough.

        Raises:
            Failure: one was deleted, or the time is over.
            Aborted: somebody stopped it.
        """
        for pod in pods:
            self.pods.start(pod)
        while not all([self.pods.poll(pod) for pod in pods]):
            check()
            if failure := deleted_object(work.namespace, pods):
                raise failure
            if any(pod.exit_code for pod in pods) or has_succeeded(work.template, pods):
                return
            time.sleep(POLL_SECONDS)
        if failure := deleted_object(work.namespace, pods):
            raise failure

    @contextmanager
    def _slot(self, check: Callable[[], None]) -> Iterator[None]:
        while not self.slots.acquire(timeout=POLL_SECONDS * 4):
            check()
        try:
            check()
            yield
        finally:
            self.slots.release()


def _check_time(limit: float | None, queued: float, end: float | None) -> None:
    """Raise once the time of an attempt, or of its node, is over; the messages are read."""
    if limit is None or end is None:
        return
    if time.time() > end:
        raise TimedOut(f"task active timeout [{in_go(2 * limit)}] expired")
    if time.time() > queued + limit:
        message = f"task execution timeout [{in_go(limit)}] expired"
        raise Failure("TimeoutExpired", message, kind=USER, recoverable=True)


def in_go(seconds: float) -> str:
    """A duration as Go prints it: `1h0m0s`, `1m30s`, `3s`."""
    minutes, rest = divmod(seconds, 60)
    hours, minutes = divmod(int(minutes), 60)
    if hours:
        return f"{hours}h{minutes}m{rest:g}s"
    return f"{minutes}m{rest:g}s" if minutes else f"{rest:g}s"


def task_execution_id(work: Work) -> identifier_pb2.TaskExecutionIdentifier:
    """The last attempt of a task at its node."""
    node = identifier_pb2.NodeExecutionIdentifier(node_id=work.node, execution_id=work.execution.id)
    return identifier_pb2.TaskExecutionIdentifier(
        task_id=work.template.id,
        node_execution_id=node,
        retry_attempt=max(len(work.record.attempts) - 1, 0),
    )


def _arguments(parts: Sequence[str], inputs_address: str, attempt: Attempt) -> list[str]:
    values = {
        "{{.input}}": inputs_address,
        "{{.outputPrefix}}": attempt.output_prefix,
        "{{.rawOutputDataPrefix}}": attempt.raw_prefix,
        "{{.checkpointOutputPrefix}}": attempt.checkpoint,
        # a first attempt gets two quotes: seen, Flyte 1.16.8, 2026-11-28
        "{{.prevCheckpointPrefix}}": attempt.previous_checkpoint or '""',
    }
    return [values.get(part, part) for part in parts]


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
