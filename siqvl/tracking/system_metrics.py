"""What a run asks of its machine, beside its curves, sent through the outbox.

MLflow's own thread sends each sample itself, and would wait for a server that is away. Names are
MLflow's, so its page shows them under "System metrics".
"""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from importlib.util import find_spec
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


class _Machine:
    """Load, memory, disk and network: MLflow's figures, which a whole import of it would cost."""

    def __init__(self) -> None:
        import psutil

        self._psutil = psutil
        self._network = psutil.net_io_counters()
        psutil.cpu_percent()  # says what passed since it was asked before
        self._values: dict[str, float] = {}

    def collect_metrics(self) -> None:
        memory, disk = self._psutil.virtual_memory(), self._psutil.disk_usage(os.sep)
        values = {
            "cpu_utilization_percentage": self._psutil.cpu_percent(),
            "system_memory_usage_megabytes": memory.used / 1e6,
            "system_memory_usage_percentage": memory.used / memory.total * 100,
            "disk_usage_percentage": disk.percent,
            "disk_usage_megabytes": disk.used / 1e6,
            "disk_available_megabytes": disk.free / 1e6,
        }
        self._values = {name: round(value, 1) for name, value in values.items()}
        now, before = self._psutil.net_io_counters(), self._network
        if now is not None and before is not None:  # a container may have no interface
            received, sent = now.bytes_recv - before.bytes_recv, now.bytes_sent - before.bytes_sent
            self._values["network_receive_megabytes"] = received / 1e6
            self._values["network_transmit_megabytes"] = sent / 1e6

    def aggregate_metrics(self) -> dict[str, float]:
        return self._values

    def clear_metrics(self) -> None:
        self._values = {}


def _monitors() -> list[Any]:
    """The machine's, and MLflow's of NVIDIA's GPUs where its library and a GPU are there."""
    monitors: list[Any] = [_Machine()]
    if find_spec("pynvml") is not None:  # of the package `nvidia-ml-py`
        from mlflow.system_metrics.metrics.gpu_monitor import GPUMonitor

        with suppress(ImportError, RuntimeError):
            monitors.append(GPUMonitor())
    return monitors
