"""What the cgroup of a container leaves of its machine: of both versions, without their defaults.

See https://docs.kernel.org/admin-guide/cgroup-v2.html (`cpu.max`, `memory.max`) and, of version 1,
`.../cgroup-v1/memory.html` and `.../scheduler/sched-bwc.html`.
"""

from __future__ import annotations

import os
from pathlib import Path

#: A variable that says where the files of this process's cgroup are, if elsewhere than usual.
PLACE = "SIQVL_CGROUP"
#: Version 1 writes "no limit" as the largest number of whole pages.
_NO_LIMIT = 2**62


def cpu_limit(root: Path | None = None) -> float | None:
    """CPUs' worth of time that this container may use; None without a limit."""
    limits = _words(root, "cpu.max") or [
        *_words(root, "cpu/cpu.cfs_quota_us"),
        *_words(root, "cpu/cpu.cfs_period_us"),
    ]
    if len(limits) != 2 or limits[0] in ("max", "-1"):
        return None
    return int(limits[0]) / int(limits[1])


def memory_limit(root: Path | None = None) -> int | None:
    """Bytes of memory that this container may use; None without a limit."""
    limits = _words(root, "memory.max") or _words(root, "memory/memory.limit_in_bytes")
    if len(limits) != 1 or limits[0] == "max" or int(limits[0]) >= _NO_LIMIT:
        return None
    return int(limits[0])


def _words(root: Path | None, name: str) -> list[str]:
    """The words in a file of this process's cgroup; none if there is no such file."""
    root = root or Path(os.environ.get(PLACE, "/sys/fs/cgroup"))
    try:
        return (root / name).read_text().split()
    except OSError:
        return []
