"""What has become of executions, as FlyteAdmin says where it may be asked.

Flyte runs no failure node when an execution is aborted, nor when Propeller gives up on it, so the
runs of such an execution are closed by others: by its own pods, which are told to end and then ask
whether their execution is over, and by whoever opens a run of the experiment later. Without
FlyteAdmin they go by the heartbeat alone (`siqvl/tracking/heartbeat.py`).

SIQVL_FLYTE_ADMIN of who registers is the address at which *pods* find it: `http://HOST:PORT`
without TLS, such as http://flyteadmin.flyte:81 inside of the cluster, or `https://HOST`. Where it
wants a login, pods need FLYTE_CREDENTIALS_CLIENT_ID and FLYTE_CREDENTIALS_CLIENT_SECRET, both from
the secret (SIQVL_SECRETS).
"""

from __future__ import annotations

import logging
import os
import re
import time
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from siqvl.errors import UserError, one_line
from siqvl.recipe import Recipe
from siqvl.tracking.heartbeat import PATIENCE, End, by_silence, judge_by
from siqvl.tracking.runs import REASON, end_run, run_log
from tasks.contracts import PipelineRun, on_cluster
from tasks.flyte_tags import EXECUTION, execution

if TYPE_CHECKING:
    from mlflow.entities import Run

logger = logging.getLogger(__name__)

ADMIN = "SIQVL_FLYTE_ADMIN"
SECONDS = 5.0  # for an answer
SILENT_AFTER = 150.0  # seconds: a heart beats each minute, and pods that end have 30 of grace
GOES_ON = 60.0  # seconds that this answer, or none, is good for

_answers: dict[str, tuple[float, End | Exception | None]] = {}


def admin_address(address: str) -> tuple[str, bool]:
    """`http://flyteadmin.flyte:81` -> ("flyteadmin.flyte:81", True), which is without TLS.

    Raises:
        UserError: it is no such address.
    """
    found = re.fullmatch(r"(https?|dns)://+([^/@\s]+)/?", address)
    if found is None:
        raise UserError(
            f"{ADMIN} is {address!r}: write where pods find FlyteAdmin, like "
            "http://flyteadmin.flyte:81 (without TLS) or https://flyte.example.org"
        )
    scheme, host = found.groups()
    has_port = re.search(r":\d+$", host) is not None
    return host if has_port else f"{host}:{80 if scheme == 'http' else 443}", scheme == "http"


def how_ended(name: str) -> End | None:
    """How an execution that is not a success ended; None while it goes on, or when it succeeded.

    Args:
        name: `project/domain/name`.

    Raises:
        Exception: there is no answer.
    """
    from flyteidl.admin.execution_pb2 import WorkflowExecutionGetRequest
    from flyteidl.core.execution_pb2 import WorkflowExecution as Phases
    from flyteidl.core.identifier_pb2 import WorkflowExecutionIdentifier

    project, domain, own = name.split("/")
    id = WorkflowExecutionIdentifier(project=project, domain=domain, name=own)
    request = WorkflowExecutionGetRequest(id=id)
    closure = _admin().GetExecution(request, timeout=SECONDS).closure
    if closure.phase in (Phases.ABORTED, Phases.ABORTING):
        about = closure.abort_metadata
        by = f" by {about.principal}" if about.principal else ""
        why = f": {one_line(Exception(about.cause))}" if about.cause else ""
        return End("KILLED", f"execution {name} was aborted in Flyte{by}{why}")
    if closure.phase in (Phases.FAILED, Phases.TIMED_OUT):
        phase, lines = Phases.Phase.Name(closure.phase), closure.error.message.splitlines()
        said = next((line.strip() for line in reversed(lines) if line.strip(" .")), "-")
        return End("FAILED", f"execution {name} {phase} in Flyte: {said}")
    return None


def _admin() -> Any:
    """FlyteAdmin's stub; with a login where there are credentials, and never with a browser."""
    from flyteidl.service.admin_pb2_grpc import AdminServiceStub
    from flytekit.clients.auth_helper import get_channel, upgrade_channel_to_authenticated
    from flytekit.configuration import AuthType, PlatformConfig

    endpoint, insecure = admin_address(os.environ[ADMIN])
    given = PlatformConfig.auto()
    config = replace(given, endpoint=endpoint, insecure=insecure, auth_mode=AuthType.CLIENTSECRET)
    channel = get_channel(config)
    if config.client_id and config.client_credentials_secret:
        channel = upgrade_channel_to_authenticated(config, channel)
    return AdminServiceStub(channel)


def by_engine(run: Run, seconds: float) -> End | None:
    """Judge a silent run by what its execution has come to; by the clock where that is unknown."""
    if seconds < SILENT_AFTER:
        return None
    name = run.data.tags.get(EXECUTION, "")
    if name.count("/") != 2:  # it is of no cluster
        return by_silence(run, seconds)
    try:
        end = _asked(name)
    except Exception as error:
        logger.info("FlyteAdmin does not say what became of %s: %s", name, one_line(error)[:200])
        return by_silence(run, seconds)
    if end is not None:
        return end
    return None if PATIENCE in run.data.tags else by_silence(run, seconds)


def _asked(name: str) -> End | None:
    """As `how_ended`; an end is final, and anything else is asked again after a minute."""
    when, answer = _answers.get(name, (float("-inf"), None))
    if not isinstance(answer, End) and time.monotonic() - when > GOES_ON:
        try:
            answer = how_ended(name)
        except Exception as error:
            answer = error
        _answers[name] = time.monotonic(), answer
    if isinstance(answer, Exception):
        raise answer
    return answer


def is_askable() -> bool:
    """Whether this is a pod that knows where FlyteAdmin is."""
    return on_cluster() and bool(os.environ.get(ADMIN))


def close_if_over(recipe: Recipe, run: PipelineRun) -> None:
    """Close the pipeline's run if its execution is over; for a pod that is told to end.

    It may as well be a node that goes: then the execution goes on, and so does the run.
    """
    if not (is_askable() and run.parent):
        return
    try:
        end = how_ended(execution())
    except Exception as error:
        logger.info("FlyteAdmin does not say whether this is an abort: %s", one_line(error)[:200])
        return
    if end is not None:
        log = run_log(recipe, run.parent)
        log.tags({REASON: end.reason})
        end_run(log, end.status)


if is_askable():
    judge_by(by_engine)
