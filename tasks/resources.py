"""Image, compute and retry policy of every task, in one place.

Container images are named templates: `[images]` in flyte.config maps `siqvl` to a repository and
tag (`pyflyte -c flyte.config …`). Compute is read from the environment of the machine that
registers the workflow, so that one recipe runs on a demo cluster and on a GPU pool alike:

    SIQVL_GPUS=1 SIQVL_CPUS=8 SIQVL_MEMORY=64Gi pyflyte -c flyte.config run --remote …
"""

from __future__ import annotations

import os
from typing import Any

from flytekit import Resources

from siqvl.errors import UserError

IMAGE = "{{.image.siqvl.fqn}}:{{.image.siqvl.version}}"


def light() -> dict[str, Any]:
    """Policy of tasks that read, write and report."""
    return {
        "container_image": IMAGE,
        "requests": Resources(cpu="1", mem="4Gi"),
        "retries": 1,
        "environment": _environment(),
    }


def heavy() -> dict[str, Any]:
    """Policy of tasks that run the model; on GPUs when SIQVL_GPUS asks for them."""
    gpus = _count("SIQVL_GPUS", 0)
    return {
        "container_image": IMAGE,
        "requests": Resources(
            cpu=str(_count("SIQVL_CPUS", 2)),
            mem=os.environ.get("SIQVL_MEMORY", "12Gi"),
            gpu=str(gpus) if gpus else None,
        ),
        # A loader worker hands batches over in shared memory; a pod's default is 64 MiB.
        "shared_memory": True if gpus else None,
        "retries": 1,
        "environment": _environment(),
    }


def _environment() -> dict[str, str]:
    """What a pod needs to find its tracking server and to say which code it runs; no secrets."""
    names = ("MLFLOW_TRACKING_URI", "SIQVL_GIT_SHA", "HF_HUB_OFFLINE", "HF_ENDPOINT")
    return {name: os.environ[name] for name in names if os.environ.get(name)}


def _count(variable: str, default: int) -> int:
    value = os.environ.get(variable, str(default))
    if not value.isdigit():
        raise UserError(f"{variable}={value!r} is no whole number; set it like {variable}=1")
    return int(value)
