"""The section `compute`: what a cluster is asked for, by kind of task."""

from __future__ import annotations

from enum import StrEnum

from pydantic import Field, model_validator

from siqvl.recipe.cluster.notify import Notify
from siqvl.recipe.cluster.pod import LabelValue, PodSettings, Quantity
from siqvl.recipe.section import Section


class Kind(StrEnum):
    """The kinds of task; what a task does decides which machine it needs."""

    DATA = "data"  # read, check, write, report
    TRAINING = "training"
    EVALUATION = "evaluation"  # answer questions with a model


class Request(PodSettings):
    """What each task of a kind asks for, and what becomes of it when it fails."""

    LATER = (*PodSettings.LATER, "grace_seconds")

    cpus: int = Field(1, gt=0, description="cores")
    memory: Quantity = Field("4Gi", description="working memory")
    disk: Quantity | None = Field(None, description="scratch space; null: what the cluster gives")
    gpus: int = Field(0, ge=0, description="0 runs on CPUs")
    gpu_type: LabelValue | None = Field(
        None, description="as the nodes' label has it, such as nvidia-tesla-a100; null: any"
    )
    shared_memory: Quantity | None = Field(
        None, description="of /dev/shm; null: all memory where there are GPUs, else 64 MiB"
    )
    retries: int = Field(
        1,
        ge=0,
        lt=2**31,
        description="further attempts of a task that ran out of memory, or lost a worker of "
        "several; lost pods have those of `system_retries`",
    )
    interruptible: bool = Field(
        False,
        description="may run on spot nodes, but for its last attempt; a stage goes on from its "
        "last state",
    )
    timeout_minutes: int | None = Field(
        None,
        gt=0,
        le=10**9,
        description="of one attempt, from when it begins to work; null: none",
    )
    grace_seconds: int = Field(
        25,
        ge=5,
        le=86_400,
        description="that a pod has when it is told to end; a stage saves a state in them",
    )

    @model_validator(mode="after")
    def _consistent(self) -> Request:
        if self.gpu_type and not self.gpus:
            raise ValueError(f"gpu_type is {self.gpu_type}, but gpus is 0")
        if self.gpu_label and not self.gpu_type:
            raise ValueError(f"gpu_label is {self.gpu_label}, but gpu_type is null")
        return self


class Compute(Section):
    """The requests of each kind of task; a run on this machine reads none of them."""

    LATER = ("system_retries", "notify", "waiting_hours")

    data: Request = Request()
    training: Request = Request(cpus=2, memory="12Gi", retries=3)
    evaluation: Request = Request(cpus=2, memory="12Gi")
    schedule: str = Field(
        "0 2 * * *",
        pattern=r"^(@(hourly|daily|weekly|monthly|yearly|annually)|\S+( \S+){4})$",
        description="cron expression, UTC, of the launch plan `scheduled`",
    )
    system_retries: int | None = Field(
        3,
        ge=0,
        lt=2**31,
        description="further attempts of a task whose pod was lost, by the cluster's own "
        "max-node-retries-system-failures, which a pod cannot ask for; null: it has "
        "ignore-retry-cause, and lost pods count against `retries`",
    )
    notify: Notify = Notify()
    waiting_hours: int | None = Field(
        24,
        gt=0,
        le=24 * 365,
        description="how long pods may wait for nodes: the run of a pipeline of which nothing was "
        "heard for longer ends KILLED; null: it never does",
    )

    @model_validator(mode="after")
    def _tried_again(self) -> Compute:
        for kind in Kind:
            request = self.of(kind)
            if not request.interruptible or self.system_retries:
                continue
            if self.system_retries is None and request.retries:
                continue
            key = "retries" if self.system_retries is None else "system_retries"
            raise ValueError(
                f"{kind}.interruptible needs `{key}`: a preempted attempt is one that failed"
            )
        return self

    def of(self, kind: Kind) -> Request:
        """Return the request of one kind of task."""
        return getattr(self, kind.value)
