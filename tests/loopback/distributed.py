"""Distributed tasks: the pods of one attempt, as Kubeflow's training operator 1.9 has them."""

from __future__ import annotations

import socket
from collections.abc import Iterator, Sequence

from flyteidl.core import tasks_pb2
from flyteidl.plugins.kubeflow import common_pb2, pytorch_pb2
from google.protobuf import json_format

from .pods import Pod

MASTER = "127.0.0.1"


def replicas(template: tasks_pb2.TaskTemplate) -> Iterator[tuple[int | None, dict[str, str]]]:
    """Index and own variables of each pod; one pod without either for an ordinary task."""
    if template.type != "pytorch":
        yield None, {}
        return
    job = _job(template)
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
                # it does not: read, Flyte 1.16.8 (`enable-distributed-error-aggregation`).
                "_F_WN": f"worker-{rank}",
            },
        )


def has_succeeded(template: tasks_pb2.TaskTemplate, pods: Sequence[Pod]) -> bool:
    """Whether a job of torch elastic has: any of its workers has ended, and none has failed.

    Read, operator 1.9.0 (`UpdateJobStatus` in `pytorchjob_controller.go`).
    """
    if template.type != "pytorch" or not _job(template).elastic_config.max_replicas:
        return False
    ended = [pod.exit_code for pod in pods if pod.exit_code is not None]
    return bool(ended) and not any(ended)


def cleans_up(template: tasks_pb2.TaskTemplate) -> bool:
    """Whether the operator ends the other pods of a job that is over; by default it does not."""
    return bool(_job(template).run_policy.clean_pod_policy != common_pb2.CLEANPOD_POLICY_NONE)


def _job(template: tasks_pb2.TaskTemplate) -> pytorch_pb2.DistributedPyTorchTrainingTask:
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
