"""Distributed tasks: the pods of one attempt, with the variables of the training operator."""

from __future__ import annotations

import socket
from collections.abc import Iterator

from flyteidl.core import tasks_pb2
from flyteidl.plugins.kubeflow import common_pb2, pytorch_pb2
from google.protobuf import json_format

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
                # Each writes its own error file, so that the first error can be told.
                "FLYTE_INTERNAL_DIST_ERROR_STRATEGY": "Earliest",
                "FLYTE_INTERNAL_WORKER_NAME": f"worker-{rank}",
            },
        )


def cleans_up(template: tasks_pb2.TaskTemplate) -> bool:
    """Whether the operator ends the other pods of a job that has failed; by default it does not."""
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
