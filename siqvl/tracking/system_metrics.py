"""What a run asks of its machine, beside its curves: MLflow's monitors, through the outbox.

MLflow's own thread sends each sample itself, and would wait for a server that is away. Names are
MLflow's, so its page shows them under "System metrics".
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any

from siqvl.errors import one_line

logger = logging.getLogger(__name__)

PREFIX = "system/"


@contextmanager
def sampled(log: Callable[..., None], seconds: float | None) -> Iterator[None]:
    """Log samples while the work inside goes on, the last one when it ends.

    Args:
        log: `RunLog.metrics` of a run.
        seconds: between samples; None: none are taken.
    """
    if seconds is None:
        yield
        return
    done = threading.Event()
    thread = threading.Thread(target=_sample, args=(log, seconds, done), daemon=True)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join()


def _sample(log: Callable[..., None], seconds: float, done: threading.Event) -> None:
    step, monitors = 0, _monitors()
    while True:
        last = done.wait(seconds)
        values: dict[str, float] = {}
        for monitor in list(monitors):
            try:
                monitor.collect_metrics()
                values |= monitor.aggregate_metrics()
                monitor.clear_metrics()
            except Exception as error:  # a figure of the machine is worth no run
                logger.warning("%s is left out: %s", type(monitor).__name__, one_line(error))
                monitors.remove(monitor)
        log({f"{PREFIX}{name}": value for name, value in values.items()}, step=step)
        if last:
            return
        step += 1


def _monitors() -> list[Any]:
    """MLflow's, that of NVIDIA's GPUs where its library (`nvidia-ml-py`) and a GPU are there."""
    from mlflow.system_metrics.metrics.cpu_monitor import CPUMonitor
    from mlflow.system_metrics.metrics.disk_monitor import DiskMonitor
    from mlflow.system_metrics.metrics.gpu_monitor import GPUMonitor
    from mlflow.system_metrics.metrics.network_monitor import NetworkMonitor

    monitors: list[Any] = [CPUMonitor(), DiskMonitor(), NetworkMonitor()]
    with suppress(ImportError, RuntimeError):
        monitors.append(GPUMonitor())
    return monitors
