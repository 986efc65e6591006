"""The end of pods that are deleted while they run: SIGTERM, and SIGKILL when their grace is over.

What comes next does not wait for it: the next attempt of a deleted pod starts at once, while the
old one is in its grace. Seen, Flyte 1.16.8, 2026-11-28.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

from .pods import Pod, PodRunner

POLL_SECONDS = 0.05


def deleted(runner: PodRunner, pods: list[Pod]) -> None:
    """End pods as Kubernetes does: the first process of each is told, and has its time."""
    for pod in pods:
        pod.terminate()
    end = time.monotonic() + max((pod.grace for pod in pods), default=0.0)
    while time.monotonic() < end:
        if all([_ended(runner, pod) for pod in pods]):
            return
        time.sleep(POLL_SECONDS)
    for pod in pods:
        runner.end(pod)


def deleted_beside(runner: PodRunner, pods: list[Pod]) -> None:
    """Do so while something else goes on."""
    for pod in pods:
        pod.terminate()
    _beside(runner, lambda: deleted(runner, pods))


def left_alone(runner: PodRunner, pods: list[Pod]) -> None:
    """Let pods run on; nobody waits for their end, which may be that of the cluster."""

    def watch() -> None:
        while not all([_ended(runner, pod) for pod in pods]):
            time.sleep(POLL_SECONDS)

    _beside(runner, watch)


def _ended(runner: PodRunner, pod: Pod) -> bool:
    return pod.process is None or runner.poll(pod)


def _beside(runner: PodRunner, work: Callable[[], None]) -> None:
    thread = threading.Thread(target=work, daemon=True)
    runner.leaving.append(thread)
    thread.start()
