"""The end of pods that are deleted while they run: SIGTERM, and SIGKILL after their grace."""

from __future__ import annotations

import contextlib
import os
import signal
import time

from .pods import Pod, PodRunner

SECONDS = 30.0  # terminationGracePeriodSeconds, as pods of Flyte 1.16.8 have it
POLL_SECONDS = 0.05


def deleted(runner: PodRunner, pods: list[Pod], seconds: float = SECONDS) -> None:
    """End pods as Kubernetes does: the first process of each is told, and has its time."""
    for pod in pods:
        if pod.process is not None and pod.exit_code is None:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pod.pid, signal.SIGTERM)  # `docker run` hands it on
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if all([pod.process is None or runner.poll(pod) for pod in pods]):
            return
        time.sleep(POLL_SECONDS)
