"""What a pod has to have before it starts: the secrets it was promised, and what was asked for it.

Flyte takes neither for an error. A secret that is not there is an `optional` one, and a pod that
asks for more than the platform allows (`task_resources.limits` in FlyteAdmin's configuration) gets
what it allows, without a word: a training would be killed by its memory limit hours later, or train
on a CPU for days.
"""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Callable
from functools import wraps
from typing import Any, ParamSpec, TypeVar

from siqvl.errors import UserError
from siqvl.machine.cgroup import cpu_limit, memory_limit
from siqvl.recipe.cluster.pod import bytes_of, quantity_of
from tasks.contracts import on_cluster
from tasks.pod_template import ASKED
from tasks.resources import SECRET_GROUP, secret_keys

logger = logging.getLogger(__name__)

PAGE = 2**16  # the kernel cuts limits down to whole pages, which are no larger than this

P = ParamSpec("P")
R = TypeVar("R")

WHY = (
    "Flyte cuts what a pipeline asks for down to `task_resources.limits` of FlyteAdmin, or of the "
    "project and domain: have them raised, or lower {key} in the recipe"
)


def begun(function: Callable[P, R]) -> Callable[P, R]:
    """Declare what a task does: in a pod, once it has what was asked for and promised."""

    @wraps(function)
    def begin(*arguments: P.args, **options: P.kwargs) -> R:
        check_given()
        return function(*arguments, **options)

    return begin


def check_given() -> None:
    """Compare what this pod has with what it is to have, and say what it was given.

    Raises:
        UserError: a secret, memory or GPUs are missing.
    """
    if not on_cluster():
        return
    _check_secrets()
    if text := os.environ.get(ASKED):
        asked = json.loads(text)
        given = {"cpus": cpu_limit(), "memory": memory_limit(), "gpus": _gpus(asked["gpus"])}
        logger.warning("%s", account(asked, given))
        compare(asked, given)


def compare(asked: dict[str, Any], given: dict[str, Any]) -> None:
    """Compare what a pod asked for with what it was given.

    Args:
        asked: `cpus`, `memory` as a quantity, `gpus`.
        given: the same, memory in bytes; None where there is no limit.

    Raises:
        UserError: there is less memory, or there are fewer GPUs. Fewer CPUs are a warning.
    """
    wanted = bytes_of(asked["memory"]) - PAGE
    if given["memory"] is not None and given["memory"] < wanted:
        raise UserError(
            f"this pod was given {quantity_of(given['memory'])} of the {asked['memory']} of memory "
            f"that it asked for: {WHY.format(key='`memory`')}"
        )
    if given["gpus"] is not None and given["gpus"] < asked["gpus"]:
        raise UserError(
            f"this pod was given {given['gpus']} of the {asked['gpus']} GPUs that it asked for: "
            f"{WHY.format(key='`gpus`')}"
        )
    if given["cpus"] is not None and given["cpus"] < asked["cpus"]:
        logger.warning(
            "this pod was given %g of the %s CPUs that it asked for, and takes longer: %s",
            given["cpus"],
            asked["cpus"],
            WHY.format(key="`cpus`"),
        )


def account(asked: dict[str, Any], given: dict[str, Any]) -> str:
    """What a pod was given, in one line."""
    cpus = "all CPUs of its node" if given["cpus"] is None else f"{given['cpus']:g} CPUs"
    memory = given["memory"]
    limited = "memory without a limit" if memory is None else f"{quantity_of(memory)} of memory"
    gpus = f", {given['gpus']} GPUs" if asked["gpus"] else ""
    return f"this pod was given {cpus}, {limited}{gpus}"


def _gpus(asked: int) -> int | None:
    if not asked:
        return None
    import torch  # which a task on GPUs needs in any case

    return torch.cuda.device_count()


def _check_secrets() -> None:
    missing = [key for key in secret_keys() if not os.environ.get(key)]
    if missing:
        raise UserError(
            f"the Flyte secret `{SECRET_GROUP}` has no {', '.join(missing)}, which SIQVL_SECRETS "
            "promised to pods: add it to the secret in the namespace of this project and domain, "
            "or leave it out of SIQVL_SECRETS"
        )
