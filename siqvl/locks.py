"""Locks on files, between processes that may be of several machines; one that dies lets go of its.

A lock file is removed by whoever is done with it, so one that has no name any more locks nothing.
"""

from __future__ import annotations

import fcntl
import os
import time
import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

PATIENCE = 30.0  # seconds, for what is a matter of moments
_PAUSE = 0.05
#: Of this process; a forked one, which may live longer, must not keep them.
_held: weakref.WeakSet[BinaryIO] = weakref.WeakSet()
os.register_at_fork(after_in_child=lambda: [file.close() for file in list(_held)])


class NoLocks(OSError):
    """The volume has no locks."""


def lock(path: Path, *, shared: bool = False, seconds: float = 0.0) -> BinaryIO | None:
    """Lock a file, made if it is not there, until it is closed.

    Args:
        shared: with others that share it.
        seconds: how long others may have it.

    Returns:
        The open file; None if somebody else has it.

    Raises:
        NoLocks: the volume has none.
        OSError: the file cannot be made.
    """
    end = time.monotonic() + seconds
    while True:
        file = path.open("a+b")
        if _flocked(file, fcntl.LOCK_SH if shared else fcntl.LOCK_EX) and _is_at(file, path):
            _held.add(file)
            return file
        file.close()
        if time.monotonic() >= end:
            return None
        time.sleep(_PAUSE)


def _is_at(file: BinaryIO, path: Path) -> bool:
    with suppress(FileNotFoundError):
        return os.path.samestat(os.fstat(file.fileno()), path.stat())
    return False


def _flocked(file: BinaryIO, how: int) -> bool:
    try:
        fcntl.flock(file, how | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError as error:
        file.close()
        raise NoLocks(*error.args) from error
    return True


def try_lock(path: Path) -> BinaryIO | None:
    """Lock a file as `lock` does; None also where there are no locks."""
    with suppress(NoLocks):
        return lock(path)
    return None


@contextmanager
def locked(path: Path, seconds: float = PATIENCE) -> Iterator[bool]:
    """Have a lock to oneself while the block runs, which it does in any case.

    Yields:
        Whether that is so: False where there are no locks, or others had it for too long.
    """
    file = None
    with suppress(OSError):
        file = lock(path, seconds=seconds)
    try:
        yield file is not None
    finally:
        if file is not None:
            path.unlink(missing_ok=True)
            file.close()


@contextmanager
def shared(path: Path) -> Iterator[Callable[[], bool]]:
    """Use something together with other processes, of which the last one tidies up.

    Yields:
        What says, at the end, whether this is the last; where there are no locks, it is.
    """
    file = None
    with suppress(OSError):
        file = lock(path, shared=True, seconds=PATIENCE)

    def is_last() -> bool:
        return file is None or _flocked(file, fcntl.LOCK_EX)

    try:
        yield is_last
    finally:
        if is_last() and (file is None or _is_at(file, path)):  # not that of who came since
            path.unlink(missing_ok=True)
        if file is not None:
            file.close()
