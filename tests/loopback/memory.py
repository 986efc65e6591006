"""The most memory that pods had at a time: what a limit has to leave them."""

from __future__ import annotations

import contextlib
import re
import time
from collections import defaultdict
from pathlib import Path

from .pods import Pod

SECONDS = 0.2  # between looks


class Peaks:
    """A hook for `Cluster(on_pod=…)` that measures pods which are processes, on Linux.

    Counted is what no kernel can take back: anonymous and shared pages of all processes of a pod.
    """

    def __init__(self) -> None:
        self.of_task: dict[str, list[int]] = defaultdict(list)  # kilobytes, by task

    def __call__(self, pod: Pod) -> None:
        peak = 0
        while pod.exit_code is None:
            peak = max(peak, sum(_kilobytes(pid) for pid in _session(pod.pid)))
            time.sleep(SECONDS)
        self.of_task[pod.task].append(peak)

    def table(self) -> str:
        """A line a task: how many pods it had, and the most that one of them had."""
        rows = sorted(self.of_task.items(), key=lambda row: -max(row[1]))
        return "\n".join(
            f"{max(peaks) / 1024:7.0f} MiB  {len(peaks):3d} pods  {task}" for task, peaks in rows
        )


def _session(leader: int) -> list[int]:
    """Processes of a pod, which is a session of its own."""
    found = []
    for path in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):  # gone meanwhile
            if path.read_text().rpartition(")")[2].split()[3] == str(leader):
                found.append(int(path.parent.name))
    return found


def _kilobytes(pid: int) -> int:
    try:
        status = Path(f"/proc/{pid}/status").read_text()
    except OSError:
        return 0
    return sum(int(count) for count in re.findall(r"^Rss(?:Anon|Shmem):\s+(\d+) kB", status, re.M))
