"""Start the training processes: this one, or several by torch elastic."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, TypeVar

from siqvl.errors import UserError
from siqvl.recipe import Distributed
from siqvl.training.loop.stop_request import heeding, training_process

if TYPE_CHECKING:
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError

Inputs = TypeVar("Inputs")
#: Signals that torch elastic may take for itself: it does so for good, and whatever `nohup` says.
SIGNALS_OF_TORCH = "SIGQUIT"


def launch(
    body: Callable[[Inputs], None],
    inputs: Inputs,
    distributed: Distributed,
    grace: float | None = None,
) -> None:
    """Run `body(inputs)` in `distributed.processes` processes of this machine.

    Hugging Face's trainers find their rank in the environment that torch elastic sets. A process
    that torch elastic started already, on this machine or on several, runs the body as it is.

    Args:
        grace: seconds that they have when this process is told to end, see `heeding`.

    Raises:
        Stopped: this process was told to end.
        UserError: there are to be several machines, more processes than GPUs on a machine that has
            any, or one process for several GPUs, among which Hugging Face's Trainer would split a
            batch without its images.
    """
    import torch

    if torch.distributed.is_torchelastic_launched():
        body(inputs)
        return
    _check_machine(distributed, torch.cuda.device_count())
    if not distributed.enabled or distributed.processes == 1:
        body(inputs)
        return

    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
    from torch.distributed.launcher.api import LaunchConfig, elastic_launch

    config = LaunchConfig(
        min_nodes=1,
        max_nodes=1,
        nproc_per_node=distributed.processes,
        rdzv_backend="c10d",
        rdzv_endpoint="127.0.0.1:0",
        max_restarts=0,
        start_method="spawn",
        signals_to_handle=SIGNALS_OF_TORCH,
    )
    try:
        with heeding(grace, by_processes=True):
            elastic_launch(config, _until_told)(body, inputs)
    except ChildFailedError as error:
        raise RuntimeError(failure_of(error)) from error


def _check_machine(distributed: Distributed, gpus: int) -> None:
    """Compare what is to run here with this machine, see `launch`."""
    if distributed.nodes > 1:
        raise UserError(
            f"distributed.nodes is {distributed.nodes}, but this task trains on one machine: start "
            "the stage with tasks/elastic_training.py on a cluster, or set it to 1"
        )
    if distributed.enabled and distributed.processes > 1:
        if gpus and distributed.processes > gpus:
            raise UserError(
                f"distributed.processes is {distributed.processes}, but this machine has {gpus} "
                "GPUs"
            )
    elif gpus > 1:
        raise UserError(
            f"this machine has {gpus} GPUs: set distributed.enabled: true and "
            f"distributed.processes: {gpus} in the recipe, or show one of them to this process "
            "with CUDA_VISIBLE_DEVICES=0"
        )


def _until_told(body: Callable[[Inputs], None], inputs: Inputs) -> None:
    with training_process(lambda: None):  # the process that has the run ends it
        body(inputs)


def failure_of(error: ChildFailedError) -> str:
    """What the first process that failed says, on one line."""
    rank, failure = error.get_first_failure()
    reason = failure.message
    if isinstance(reason, dict):
        reason = reason.get("message", reason)
    return f"training process {rank} failed: {' '.join(str(reason).split())}"
