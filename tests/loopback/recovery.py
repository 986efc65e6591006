"""What an execution that recovers another takes from it, node by node.

Seen with Flyte 1.16.8: nodes that had succeeded come back as RECOVERED with their outputs (those
from the cache still as hits), and the first attempt of a task that had not gets the checkpoint path
of its last one. Read there (`attemptRecovery` in `nodes/executor.go`): a dynamic task whose own pod
had succeeded is not run again, its plan is taken; and a failure node that had succeeded is
recovered like any other, so it does not run when the recovered execution fails, too. An array node
that had not succeeded is begun anew.
"""

from __future__ import annotations

from .records import Execution, NodeRecord, Phase

DONE = (Phase.SUCCEEDED, Phase.RECOVERED)


def before(execution: Execution, id: str) -> NodeRecord | None:
    """The last record of the same node in the execution that this one recovers, if there is one."""
    if execution.recovers is None:
        return None
    found = [record for record in execution.recovers.nodes if record.id == id]
    return found[-1] if found else None


def recovered(execution: Execution, record: NodeRecord) -> bool:
    """Whether a node had succeeded before; its record then has what was made."""
    earlier = before(execution, record.id)
    if earlier is None or earlier.phase not in DONE:
        return False
    record.inputs, record.outputs = earlier.inputs, earlier.outputs
    record.task, record.policy = earlier.task, earlier.policy
    record.cache_status, record.cached_from = earlier.cache_status, earlier.cached_from
    record.started = record.ended = record.created
    record.phase = Phase.RECOVERED
    return True


def last_checkpoint(execution: Execution, id: str) -> str:
    """Where the last attempt of a task has saved what it had; empty if it was not tried."""
    earlier = before(execution, id)
    return earlier.attempts[-1].checkpoint if earlier and earlier.attempts else ""
