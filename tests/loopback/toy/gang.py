"""A task in two pods that have to meet."""

from __future__ import annotations

import os
import socket
import time
from dataclasses import dataclass
from typing import Any

from flyteidl.plugins.kubeflow.common_pb2 import RunPolicy
from flyteidl.plugins.kubeflow.pytorch_pb2 import DistributedPyTorchTrainingTask, ElasticConfig
from flytekit import PythonFunctionTask, task, workflow
from flytekit.configuration import SerializationSettings
from flytekit.extend import IgnoreOutputs, TaskPlugins
from flytekit.types.error.error import FlyteError
from google.protobuf.json_format import MessageToDict
from toy.pieces import IMAGE


@dataclass
class Pair:
    """Stands for `Elastic(nnodes=2)` of the kfpytorch plugin, without importing torch."""

    clean: str = "CLEANPOD_POLICY_NONE"


class PairTask(PythonFunctionTask[Pair]):
    def __init__(self, task_config: Pair, task_function: Any, **kwargs: Any):
        super().__init__(task_config, task_function, task_type="pytorch", **kwargs)

    def get_custom(self, settings: SerializationSettings) -> dict[str, Any]:
        elastic = ElasticConfig(
            rdzv_backend="c10d", min_replicas=2, max_replicas=2, nproc_per_node=1
        )
        policy = RunPolicy(clean_pod_policy=self.task_config.clean)
        job = DistributedPyTorchTrainingTask(elastic_config=elastic, run_policy=policy)
        content: dict[str, Any] = MessageToDict(job)
        return content


TaskPlugins.register_pythontask_plugin(Pair, PairTask)


@task(container_image=IMAGE, task_config=Pair())
def met() -> dict[str, str]:
    """The variables of the first pod, once the second has come to where they meet."""
    host, port = os.environ["PET_RDZV_ENDPOINT"].split(":")
    if os.environ["RANK"] == "1":
        _visit(host, int(port))
        raise IgnoreOutputs
    with socket.create_server((host, int(port))) as server:
        server.settimeout(30)
        server.accept()
    return {name: os.environ[name] for name in os.environ if name.startswith(("PET_", "WORLD"))}


@task(container_image=IMAGE, task_config=Pair(), retries=1)
def bereft() -> int:
    """The second pod is lost; the first goes on, whatever the job does."""
    return _bereft()


@task(container_image=IMAGE, task_config=Pair("CLEANPOD_POLICY_RUNNING"), retries=1)
def cleared() -> int:
    """The same, but that the job ends pods that still run."""
    return _bereft()


@task(container_image=IMAGE, task_config=Pair("CLEANPOD_POLICY_RUNNING"))
def hasty() -> int:
    """The second pod is done before the first has written what they made."""
    if os.environ["RANK"] == "1":
        raise IgnoreOutputs
    time.sleep(3600)
    return 1


def _bereft() -> int:
    if os.environ["RANK"] == "1":
        os._exit(9)
    time.sleep(3600)
    return 1


def _visit(host: str, port: int) -> None:
    for _ in range(300):
        try:
            socket.create_connection((host, port), timeout=1).close()
            return
        except OSError:
            time.sleep(0.1)
    raise TimeoutError("nobody came")


@task(container_image=IMAGE)
def noticed(err: FlyteError | None = None) -> None:
    """Says why the workflow failed."""
    print(f"noticed: {err.message if err else None}")


@workflow(on_failure=noticed)
def meeting() -> dict[str, str]:
    """A job of several pods, and what is to be done when it fails."""
    return met()
