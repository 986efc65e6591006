"""Distributed tasks: the job of one attempt, as Kubeflow's training operator 1.9 keeps it.

Seen (operator 1.9.3 under Flyte 1.16.8): a worker that is lost fails the job, which is a user
failure against `retries`; the job of an attempt that is tried again is deleted, and its pods have
their grace beside the next attempt; that of the last attempt stays, and its other workers run on
unless its `cleanPodPolicy` says otherwise. Read (operator 1.9.0): a job of torch elastic has
succeeded when any worker has ended with 0, and `Running` then deletes those that still run.
"""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

from flyteidl.core import tasks_pb2
from flyteidl.plugins.kubeflow import common_pb2, pytorch_pb2
from google.protobuf import json_format

from .pods import Pod, PodRunner
from .records import USER, Cancel, Failure

JOB = "pytorch"  # the type of its task
MASTER = "127.0.0.1"
GRACE = 30.0  # seconds, Kubernetes' own
POLL_SECONDS = 0.05


def replicas(template: tasks_pb2.TaskTemplate) -> Iterator[tuple[int | None, dict[str, str]]]:
    """Index and own variables of each pod; one pod without either for an ordinary task."""
    if template.type != JOB:
        yield None, {}
        return
    job = _spec(template)
    elastic, port = job.elastic_config, str(_free_port())
    if elastic.max_replicas:
        count, shared = elastic.max_replicas, _elastic_variables(elastic, port)
    else:
        count, shared = job.worker_replicas.replicas + 1, {}  # the master is one more
    for rank in range(count):
        yield (
            rank,
            shared
            | {
                "MASTER_ADDR": MASTER,
                "MASTER_PORT": port,
                "WORLD_SIZE": str(count),
                "RANK": str(rank),
                "PYTHONUNBUFFERED": "1",
                # All write to one error file, unless the cluster aggregates them, which by default
                # it does not (`enable-distributed-error-aggregation`).
                "_F_WN": f"worker-{rank}",
            },
        )


@dataclass(frozen=True)
class Job:
    """The pods of one attempt, and what becomes of them when one of them ends."""

    name: str
    template: tasks_pb2.TaskTemplate
    runner: PodRunner
    pods: list[Pod]

    def run(self, cancel: Cancel, overdue: Callable[[], None]) -> None:
        """Run the pods side by side until the job has succeeded.

        Args:
            overdue: raises when the time of the attempt is over.

        Raises:
            Failure: a worker has failed, or the time is over.
            Aborted: somebody stopped it; the job is deleted.
        """
        try:
            for pod in self.pods:
                self.runner.start(pod)
            while not self._succeeded():
                cancel.check()
                overdue()
                time.sleep(POLL_SECONDS)
        except Failure as failure:
            if failure.code == "DownstreamSystemError":
                self._clean()
            else:
                delete(self.runner, self.pods)
            raise
        self._clean()

    def _succeeded(self) -> bool:
        """Whether it has; by the operator's rules, in its order.

        Raises:
            Failure: it has failed.
        """
        ended = [pod.exit_code for pod in self.pods if self.runner.poll(pod)]
        failed = sum(code != 0 for code in ended)
        if failed:
            raise Failure(
                "DownstreamSystemError",
                f"Job failed:\n\tPyTorchJobFailed - PyTorchJob {self.name} is failed because "
                f"{failed} Worker replica(s) failed.",
                kind=USER,
                recoverable=True,
            )
        if _spec(self.template).elastic_config.max_replicas:
            return bool(ended)
        return self.pods[0].exit_code == 0  # the master's

    def _clean(self) -> None:
        """What the run policy says of pods that run when a job has ended."""
        if _spec(self.template).run_policy.clean_pod_policy == common_pb2.CLEANPOD_POLICY_NONE:
            _watched(self.runner, self.pods, None)
        else:
            delete(self.runner, self.pods)


def delete(runner: PodRunner, pods: Iterable[Pod], grace: float = GRACE) -> None:
    """Tell pods to end, and kill them when their grace is over; nobody waits for that."""
    left = [pod for pod in pods if pod.exit_code is None and pod.process is not None]
    for pod in left:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pod.pid, signal.SIGTERM)
    _watched(runner, left, time.monotonic() + grace)


def _watched(runner: PodRunner, pods: Iterable[Pod], end: float | None) -> None:
    """See in the background how pods end; at a time, kill what is left of them."""

    def watch(pod: Pod) -> None:
        while not runner.poll(pod):
            if end is not None and time.monotonic() > end:
                pod.kill()
            time.sleep(POLL_SECONDS)

    for pod in pods:
        if pod.exit_code is None and pod.process is not None:
            threading.Thread(target=watch, args=(pod,), daemon=True).start()


def _spec(template: tasks_pb2.TaskTemplate) -> pytorch_pb2.DistributedPyTorchTrainingTask:
    return json_format.ParseDict(
        json_format.MessageToDict(template.custom), pytorch_pb2.DistributedPyTorchTrainingTask()
    )


def _elastic_variables(elastic: pytorch_pb2.ElasticConfig, port: str) -> dict[str, str]:
    return {
        "PET_NNODES": f"{elastic.min_replicas}:{elastic.max_replicas}",
        "PET_NPROC_PER_NODE": str(elastic.nproc_per_node),
        "PET_RDZV_BACKEND": elastic.rdzv_backend,
        "PET_RDZV_ENDPOINT": f"{MASTER}:{port}",
        "PET_MAX_RESTARTS": str(elastic.max_restarts),
    }


def _free_port() -> int:
    with socket.socket() as listener:
        listener.bind((MASTER, 0))
        port: int = listener.getsockname()[1]
        return port
