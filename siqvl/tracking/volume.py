"""What the volume below a folder can do for a database: memory that processes share, and locks."""

from __future__ import annotations

import contextlib
import fcntl
import os
from collections.abc import Iterator
from pathlib import Path

MOUNTS = Path("/proc/self/mounts")
LOCAL = frozenset(("ext2", "ext3", "ext4", "xfs", "btrfs", "f2fs", "zfs", "tmpfs", "overlay"))


def is_local(folder: Path, mounts: Path = MOUNTS) -> bool:
    """Return whether a folder lies on a disk of this machine; one that is unknown does not.

    A write-ahead log is shared through memory, so it is for processes of one machine; a network
    volume has others, and so may whatever is behind a volume in user space (FUSE).
    """
    place, kind, deepest = folder.resolve(), "", 0
    for line in mounts.read_text(encoding="utf-8").splitlines() if mounts.is_file() else ():
        _, at, of, *_ = line.split(" ")
        point = Path(at.replace(r"\040", " "))
        if place.is_relative_to(point) and len(point.parts) >= deepest:  # a later one covers it
            kind, deepest = of, len(point.parts)
    return kind in LOCAL


@contextlib.contextmanager
def alone_in(folder: Path) -> Iterator[None]:
    """Keep other processes from doing the same in a folder, where the volume has such locks."""
    number = os.open(folder, os.O_RDONLY)
    try:
        with contextlib.suppress(OSError):
            fcntl.flock(number, fcntl.LOCK_EX)
        yield
    finally:
        os.close(number)
