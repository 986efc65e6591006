"""The section `compute`: what a cluster is asked for, by kind of task."""

from __future__ import annotations

import re
from enum import StrEnum
from typing import Annotated

from pydantic import AfterValidator, Field, model_validator

from siqvl.recipe.notify import Notify
from siqvl.recipe.section import Section


class Kind(StrEnum):
    """The kinds of task; what a task does decides which machine it needs."""

    DATA = "data"  # read, check, write, report
    TRAINING = "training"
    EVALUATION = "evaluation"  # answer questions with a model


def _quantity(value: str) -> str:
    if not re.fullmatch(r"[1-9]\d*(k|[MGT]|[KMGT]i)?", value):
        raise ValueError(f"{value!r} is no Kubernetes quantity of bytes; write it like 16Gi")
    return value


#: Bytes as Kubernetes writes them.
Quantity = Annotated[str, AfterValidator(_quantity)]


class Request(Section):
    """What each task of a kind asks for, and what becomes of it when it fails."""

    cpus: int = Field(1, gt=0, description="cores")
    memory: Quantity = Field("4Gi", description="working memory")
    disk: Quantity | None = Field(None, description="scratch space; null: what the cluster gives")
    gpus: int = Field(0, ge=0, description="0 runs on CPUs")
    gpu_type: str | None = Field(
        None, description="label of the nodes, such as nvidia-tesla-a100; null: any"
    )
    shared_memory: Quantity | None = Field(
        None, description="of /dev/shm; null: all memory where there are GPUs, else 64 MiB"
    )
    retries: int = Field(
        1, ge=0, lt=2**31, description="further attempts of a task whose pod was lost"
    )
    interruptible: bool = Field(
        False, description="may run on spot nodes; a stage goes on from its last state"
    )
    timeout_minutes: int | None = Field(
        None, gt=0, le=10**9, description="of one attempt; null: none"
    )

    @model_validator(mode="after")
    def _consistent(self) -> Request:
        if self.gpu_type and not self.gpus:
            raise ValueError(f"gpu_type is {self.gpu_type}, but gpus is 0")
        if self.interruptible and not self.retries:
            raise ValueError(
                "interruptible needs `retries`: a preempted attempt is one that failed"
            )
        return self


class Compute(Section):
    """The requests of each kind of task; a run on this machine reads none of them."""

    LATER = ("notify", "waiting_hours")

    data: Request = Request()
    training: Request = Request(cpus=2, memory="12Gi", retries=3)
    evaluation: Request = Request(cpus=2, memory="12Gi")
    schedule: str = Field(
        "0 2 * * *",
        pattern=r"^(@(hourly|daily|weekly|monthly|yearly|annually)|\S+( \S+){4})$",
        description="cron expression, UTC, of the launch plan `scheduled`",
    )
    notify: Notify = Notify()
    waiting_hours: int | None = Field(
        24,
        gt=0,
        le=24 * 365,
        description="how long pods may wait for nodes: the run of a pipeline of which nothing was "
        "heard for longer ends KILLED; null: it never does",
    )

    def of(self, kind: Kind) -> Request:
        """Return the request of one kind of task."""
        return getattr(self, kind.value)
