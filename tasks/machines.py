"""A stage on several machines: what its pods, one a machine, need to know of one another.

They are the workers of a PyTorchJob of Kubeflow's training operator (read in 1.9.0, Flyte 1.16.8):

- The job has succeeded when *any* worker has ended with 0, and Flyte then looks for the outputs,
  which one worker alone writes. So the others stay until it has.
- The job has failed when a worker's pod has, which counts against `retries`; the workers that are
  left are ended by its run policy (`Running`), or with the job when an attempt is tried again.
- A task that raises ends with 0, and the error that it has written decides: so one that has only
  lost sight of the others lets them say first what happened.
"""

from __future__ import annotations

import logging
import os
import re
import time

from flytekit import current_context
from flytekit.core.context_manager import FlyteContextManager
from flytekit.exceptions.user import FlyteRecoverableException
from torch.distributed.elastic.multiprocessing.errors import ChildFailedError, ProcessFailure

from siqvl.errors import UserError, one_line
from siqvl.recipe import Distributed
from siqvl.training.loop.launch import failure_of
from tasks.contracts import on_cluster

logger = logging.getLogger(__name__)

#: Of a pod that is one of several: how many meet, as the operator writes it.
MACHINES = "PET_NNODES"
LOOKS_EVERY = 2.0  # seconds, for outputs
LONGEST = 3600.0  # that the others wait for them
#: The one that wrote them still shows its deck; the operator ends the others once it is gone.
AFTERWARDS = 60.0
#: In which a worker that failed has been seen to, with what torch elastic takes to find it out.
FIRST_SAID = 30.0
#: What a process says that has lost another: gloo's errors name its sources, NCCL's their kind.
_LOST_ANOTHER = re.compile(r"(Dist\w*Error: |RuntimeError: .*gloo)", re.DOTALL)


def check_machines(distributed: Distributed) -> None:
    """Compare the machines of a recipe with the pods that this one is among.

    Raises:
        UserError: there are more or fewer; those that are missing would be waited for, or each
            would train by itself.
    """
    found = int(os.environ.get(MACHINES, "1").rpartition(":")[2])
    wanted = distributed.nodes
    if found == wanted:
        return
    if not on_cluster():
        raise UserError(
            f"distributed.nodes is {wanted}, but this is one machine: set it to 1, or start the "
            "stage on a cluster with --remote"
        )
    raise UserError(
        f"distributed.nodes is {wanted}, but this task runs in {found} pod(s), as it was "
        "registered for another recipe: name the recipe where it is registered, with --recipe of "
        "`pyflyte run --remote` or SIQVL_RECIPE of `pyflyte register`"
    )


def reason(error: ChildFailedError, distributed: Distributed) -> Exception:
    """What is raised for training processes that failed: another attempt helps, or it does not.

    One that was killed (the kernel's out-of-memory killer, a GPU that is lost) is tried again, as a
    pod that was killed is. One that lost another on the network waits a little before it says so.
    """
    _, failure = error.get_first_failure()
    if not on_cluster() or not (failure.exitcode < 0 or _lost_another(failure)):
        return UserError(failure_of(error))
    if _lost_another(failure):
        _let_others_speak(distributed)
    return FlyteRecoverableException(failure_of(error))


def not_met(error: Exception, distributed: Distributed) -> Exception:
    """What is raised where the machines do not find one another, or lose where they meet."""
    _let_others_speak(distributed)
    return FlyteRecoverableException(
        f"the machines of this stage lost one another: {one_line(error)}"
    )


def _let_others_speak(distributed: Distributed) -> None:
    if on_cluster() and distributed.nodes > 1:
        time.sleep(FIRST_SAID)


def stay_until_delivered() -> None:
    """Keep a pod that has done its part until the outputs of the stage are in the blob store.

    It ends earlier by SIGTERM: with the pod that delivers them, or the job.
    """
    prefix = current_context().output_metadata_prefix
    if not on_cluster() or not prefix:
        return
    store, end = FlyteContextManager.current_context().file_access, time.monotonic() + LONGEST
    while time.monotonic() < end:
        try:
            if any(store.exists(f"{prefix}/{name}.pb") for name in ("outputs", "error")):
                break
        except Exception as error:  # a store that is away
            logger.warning("looking for the outputs of this stage: %s", one_line(error))
        time.sleep(LOOKS_EVERY)
    time.sleep(AFTERWARDS)


def _lost_another(failure: ProcessFailure) -> bool:
    said = failure.message
    if isinstance(said, dict):
        said = said.get("message", "")
    return bool(_LOST_ANOTHER.match(str(said)))
