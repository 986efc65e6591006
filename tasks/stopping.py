"""A process that is told to end says so in one line, ends its runs truly and dies of the signal.

The first signal raises `Stopped`, which nothing but the outermost `stoppable` catches, so that
whatever is open is closed on its way out. Between the tasks of a pipeline on one machine, where
nothing of ours is open but the pipeline's run, the same is done where the signal finds the process.
A training at its steps is asked to stop instead (`siqvl/training/loop/stop_request.py`), and does
so after the step that is under way, with a state.

In a pod the process ends as one that SIGKILL has ended: Flyte takes exit codes 137 and 247 for a
lost node, so that another attempt follows whatever `retries` says, and 143 and 241 for a mistake.
"""

from __future__ import annotations

import atexit
import contextlib
import multiprocessing
import os
import signal
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from types import FrameType
from typing import Any, NoReturn

from siqvl.tracking.heartbeat import own_runs
from siqvl.tracking.runs import end_own_runs
from siqvl.training.loop.stop_request import (
    Request,
    Stopped,
    ask,
    is_heeded_by_processes,
    standing,
)
from tasks.contracts import on_cluster

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
LOOKS_EVERY = 0.05  # seconds, at processes that are to end
#: Of a pod whose node was lost, as Flyte sees it.
LOST = 128 + signal.SIGKILL


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
            signal.signal(number, signal.SIG_DFL)
            os.kill(os.getpid(), number)
        return
    _place.stopped = number
    by_processes = is_heeded_by_processes()
    request = ask(number, _give_up)
    for other in _place.before:  # a second one ends this process at once
        signal.signal(other, _at_once if by_processes else signal.SIG_DFL)
    signal.signal(signal.SIGHUP, signal.SIG_IGN)  # but a shell whose terminal closes sends two
    signal.signal(signal.SIGCHLD, _do_nothing)  # workers that die of the same one are no failure
    _say(number, at_once=request is None)
    if request is not None and not by_processes:
        return
    if request is not None:
        _wait_for_processes(request)
    _kill_children()  # whoever waits for one would wait for ever
    if _place.blocks:
        raise Stopped(number)
    _die()


def _say(number: int, *, at_once: bool) -> None:
    names = ", ".join(f"`{run.name}`" for run in own_runs()) or "this task"
    when = "" if at_once else " after the step that is under way"
    follows = "the same command goes on where it was"
    if on_cluster():
        follows = "the next attempt takes its place"
    said = f"{signal.Signals(number).name} stops {names}{when}; {follows}"
    with contextlib.suppress(OSError):  # the terminal is gone
        os.write(2, f"\n{said}\n".encode())


def _wait_for_processes(request: Request) -> None:
    """Tell training processes to stop, and wait for them: torch elastic would end the others."""
    children = multiprocessing.active_children()
    for child in children:
        child.terminate()  # also of Ctrl-C, which those that have left the terminal do not hear
    while any(child.is_alive() for child in children) and request.left > 0:
        time.sleep(LOOKS_EVERY)


def _kill_children() -> None:
    for child in multiprocessing.active_children():
        child.kill()


def _at_once(number: int, frame: FrameType | None) -> None:
    _kill_children()
    _kill(number)


def give_up() -> None:
    """Say what is lost as a training has not ended in time, and end its runs; in any thread."""
    with contextlib.suppress(OSError):
        os.write(2, f"too little grace for this step and its state: {standing}\n".encode())
    _kill_children()
    with contextlib.suppress(Exception):
        end_own_runs()


def _give_up() -> None:
    give_up()
    os._exit(LOST)


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


def stop(number: int) -> NoReturn:
    """End this process as if it had been given a signal, which another process of its work was.

    Raises:
        Stopped: always.
    """
    _place.stopped = number
    raise Stopped(number)


def _kill(number: int) -> None:
    if on_cluster():
        os._exit(LOST)
    signal.signal(number, signal.SIG_DFL)
    os.kill(os.getpid(), number)
    os._exit(128 + number)  # the first process of a container is not killed by signals of its own
