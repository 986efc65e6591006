"""A process that is told to end says so in one line, ends its runs truly and dies of the signal.

The first signal raises `Stopped`, which nothing but the outermost `stoppable` catches, so that
whatever is open is closed on its way out. Between the tasks of a pipeline on one machine, where
nothing of ours is open but the pipeline's run, the same is done where the signal finds the process.
"""

from __future__ import annotations

import atexit
import contextlib
import multiprocessing
import os
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from types import FrameType
from typing import Any

from siqvl.tracking.heartbeat import own_runs
from siqvl.tracking.runs import end_own_runs

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class Stopped(BaseException):
    """A signal has told this process to end."""


@dataclass
class _Place:
    """Where this process is: what signals did before, and how many blocks are around it."""

    before: dict[int, Any] = field(default_factory=dict)  # empty: they do that still
    others: frozenset[str] = frozenset()  # runs that were open then
    process: int = 0
    blocks: int = 0
    stopped: int = 0  # by this signal


_place = _Place()


@contextmanager
def stoppable() -> Iterator[None]:
    """Work that SIGINT, SIGTERM and SIGHUP stop: the runs that this process has begun end KILLED.

    Signals stay so after it while runs that were begun in it are open. One that is ignored (as
    `nohup` has it) stays ignored. In processes that others started for their work, in threads and
    at a prompt signals do what they always do.
    """
    if (
        threading.current_thread() is not threading.main_thread()
        or multiprocessing.parent_process() is not None
        or hasattr(sys, "ps1")
    ):
        yield
        return
    if not _place.before:
        _begin()
    _place.blocks += 1
    try:
        yield
    finally:
        _place.blocks -= 1
        if not _place.blocks and _place.stopped:  # also where something swallowed the exception
            _die()
        if not _place.blocks and {run.run_id for run in own_runs()} <= _place.others:
            for number, handler in _place.before.items():
                signal.signal(number, handler)
            _place.before = {}


def _begin() -> None:
    before = {number: signal.getsignal(number) for number in SIGNALS}
    _place.before = {number: do for number, do in before.items() if do is not signal.SIG_IGN}
    _place.others = frozenset(run.run_id for run in own_runs())
    _place.process = os.getpid()
    for number in _place.before:
        signal.signal(number, _stop)


def _stop(number: int, frame: FrameType | None) -> None:
    if os.getpid() != _place.process:  # a forked worker ends with its parent, or when that says so
        if number == signal.SIGTERM:
            _kill(number)
        return
    _place.stopped = number
    for other in _place.before:  # a second one ends this process at once
        signal.signal(other, signal.SIG_DFL)
    signal.signal(signal.SIGHUP, signal.SIG_IGN)  # but a shell whose terminal closes sends two
    signal.signal(signal.SIGCHLD, _do_nothing)  # workers that die of the same one are no failure
    names = ", ".join(f"`{run.name}`" for run in own_runs()) or "this task"
    said = f"{signal.Signals(number).name} stops {names}; the same command goes on where it was"
    with contextlib.suppress(OSError):  # the terminal is gone
        os.write(2, f"\n{said}\n".encode())
    for child in multiprocessing.active_children():  # whoever waits for one would wait for ever
        child.kill()
    if _place.blocks:
        raise Stopped(number)
    _die()


def _do_nothing(number: int, frame: FrameType | None) -> None:
    pass


def _die() -> None:
    with contextlib.suppress(Exception):  # such as of a disk that is full
        end_own_runs()
    atexit._run_exitfuncs()
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError, ValueError):
            stream.flush()
    _kill(_place.stopped)


def _kill(number: int) -> None:
    signal.signal(number, signal.SIG_DFL)
    os.kill(os.getpid(), number)
    os._exit(128 + number)  # the first process of a container is not killed by signals of its own
