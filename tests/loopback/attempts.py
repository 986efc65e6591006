"""How often Flyte tries a task, where it runs it, and what it says once it has tried enough.

Seen, Flyte 1.16.8, 2026-11-28, but for what is marked (read): that is in its source alone,
`isEligibleForRetry` in `nodes/executor.go`, `BuildNodeExecutionContext` beside it and
`computeRetryStrategy` of the compiler.
"""

from __future__ import annotations

from dataclasses import dataclass

from flyteidl.core.execution_pb2 import ExecutionError

from .policy import Policy
from .records import SYSTEM, USER, Failure


@dataclass(frozen=True)
class Rules:
    """The part of Propeller's configuration that counts attempts; the defaults are its own."""

    #: `max-node-retries-system-failures`: further attempts after lost pods, whatever `retries` says
    system_retries: int = 3
    #: `ignore-retry-cause`: lost pods count against `retries`, as all other failures do
    ignore_retry_cause: bool = False
    #: `default-max-attempts`: of a task without retries
    max_attempts: int = 1
    #: `interruptible-failure-threshold`: how many of the last attempts are not interruptible
    safe_attempts: int = 1


@dataclass
class Tally:
    """The attempts of one task at one node, or of one element of an array node."""

    rules: Rules
    policy: Policy
    failed: int = 0
    system_failures: int = 0

    @property
    def interruptible(self) -> bool:
        """Whether the next attempt may run where it can be taken away.

        Lost pods alone count, not attempts; one that ignores the cause tries once there at least
        (read).
        """
        rules = self.rules
        if not self.policy.interruptible:
            return False
        if rules.ignore_retry_cause:
            return not self.failed or self.failed < self._attempts - rules.safe_attempts
        return self.system_failures < rules.system_retries + 1 - rules.safe_attempts

    def final(self, failure: Failure) -> Failure | None:
        """Count a failed attempt; what the node fails with, None where it is tried again."""
        if not failure.recoverable:
            return failure
        if failure.kind == SYSTEM and not self.rules.ignore_retry_cause:
            current, most = self.system_failures, self.rules.system_retries
            self.system_failures += 1
        else:
            current, most = self.failed + 1 - self.system_failures, self._attempts
        self.failed += 1
        if current < most:
            return None
        kind = ExecutionError.ErrorKind.Name(failure.kind)
        message = f"[{current}/{most}] currentAttempt done. Last Error: {kind}::{failure.message}"
        return Failure(f"RetriesExhausted|{failure.code}", message, kind=USER)

    @property
    def _attempts(self) -> int:
        return self.policy.retries + 1 if self.policy.retries else self.rules.max_attempts
