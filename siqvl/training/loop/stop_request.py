"""A request to stop, which a training at its steps heeds: it ends after the step it is in.

Whoever handles signals asks: `tasks/stopping.py`, and `training_process` in those that torch
elastic started. Work that heeds nothing is stopped at once. A cluster gives a process that is told
to end a while, its grace; what is not done by then is given up, so that at least its runs end.
"""

from __future__ import annotations

import math
import multiprocessing
import os
import queue
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from types import FrameType

#: Seconds of the grace that are left to what comes after training: its runs end.
RESERVE = 3.0
#: How a process ends that SIGTERM has ended, to whoever started it.
TERMINATED = 128 + signal.SIGTERM


class Stopped(BaseException):
    """A signal has told this process to end."""


@dataclass(frozen=True)
class Request:
    """What was asked for."""

    number: int  # of the signal
    asked: float  # by `time.monotonic`
    seconds: float | None  # of grace; None: as long as it takes

    @property
    def left(self) -> float:
        """Seconds until what is not done is given up; infinite where nobody is in a hurry."""
        if self.seconds is None:
            return math.inf
        return self.asked + self.seconds - RESERVE - time.monotonic()


@dataclass
class Standing:
    """How far a training is, and from where another attempt would go on."""

    step: int = 0  # optimizer steps that are done
    kept: int = 0  # of the newest state that another attempt finds; 0: none
    elsewhere: bool = False  # attempts find states in a store alone, and not on this disk
    writing: float = 0.0  # seconds that the last state took to be written
    keeping: float = 0.0  # and to be put into the store

    def begins(self, step: int) -> None:
        """The training goes on from the state of a step, or from 0."""
        self.step = self.kept = step

    def saved(self, step: int, seconds: float) -> None:
        """A state is on this disk, which took so long."""
        self.writing = seconds
        if not self.elsewhere:
            self.kept = step

    def stored(self, step: int, seconds: float) -> None:
        """A state is in the store, which took so long."""
        self.keeping, self.kept = seconds, step

    def __str__(self) -> str:
        """What the end of this process costs, in words."""
        lost = self.step - self.kept
        if not self.step and not self.kept:
            return "no step was done"
        if lost <= 0:
            return f"the state of step {self.kept} is kept, and nothing is lost"
        last = f"the state of step {self.kept} stands" if self.kept else "there is no state"
        return f"{last}, and {lost} step{'s are' if lost > 1 else ' is'} lost"


@dataclass
class _Watch:
    """A thread that hears of a request, tells of it, and gives up when the grace is over.

    It waits before there is one: a handler of signals may start no thread, and take no lock.
    """

    seconds: float | None
    by_processes: bool
    process: int = field(default_factory=os.getpid)
    messages: queue.SimpleQueue[tuple[Request, Callable[[], None]] | None] = field(
        default_factory=queue.SimpleQueue
    )

    def run(self) -> None:
        message = self.messages.get()
        if message is None:
            return
        request, give_up = message
        for listener in list(_listeners):
            listener()
        if request.seconds is not None:
            with suppress(queue.Empty):
                self.messages.get(timeout=max(0.0, request.left))
                return
            give_up()


standing = Standing()
_watch: _Watch | None = None
_request: Request | None = None
_listeners: list[Callable[[], None]] = []


def requested() -> Request | None:
    """The request to stop that this process was given, if it was."""
    return _request


@contextmanager
def heeding(seconds: float | None, *, by_processes: bool = False) -> Iterator[None]:
    """Work that looks at `requested` now and then, and ends by `Stopped` when there is one.

    Args:
        seconds: of grace; None: as long as it takes.
        by_processes: those that it has started do, and are told.

    Raises:
        Stopped: there is one, and the work has ended by itself.
    """
    global _watch
    before, _watch = _watch, _Watch(seconds, by_processes)
    watch = _watch
    threading.Thread(target=watch.run, name="stop-request", daemon=True).start()
    try:
        yield
        if _request is not None:
            raise Stopped(_request.number)
    finally:
        _watch = before
        if _request is None:
            watch.messages.put(None)


def ask(number: int, give_up: Callable[[], None]) -> Request | None:
    """Ask what this process does to stop; for handlers of signals.

    Args:
        give_up: called by another thread when the grace is over; it ends the process.

    Returns:
        None where nothing would heed it.
    """
    global _request
    watch = _watch
    if watch is None or watch.process != os.getpid():
        return None
    _request = Request(number, time.monotonic(), watch.seconds)
    watch.messages.put((_request, give_up))
    return _request


def is_heeded_by_processes() -> bool:
    """Whether it is those that this process has started that heed a request."""
    return _watch is not None and _watch.by_processes


@contextmanager
def listening(listener: Callable[[], None]) -> Iterator[None]:
    """Have a function called, by another thread, when there is a request."""
    _listeners.append(listener)
    try:
        yield
    finally:
        _listeners.remove(listener)


@contextmanager
def training_process(give_up: Callable[[], None]) -> Iterator[None]:
    """The work of a process that torch elastic has started; of any other one it changes nothing.

    A signal asks it to stop, further ones change nothing: who is in a hurry kills it. It ends
    without a trace, as SIGTERM ends processes.

    Args:
        give_up: called when the grace is over, before the process ends.
    """
    if multiprocessing.parent_process() is None or not _is_main_thread():
        yield
        return
    process = os.getpid()

    def late() -> None:
        give_up()
        os._exit(TERMINATED)

    def told(number: int, frame: FrameType | None) -> None:
        if os.getpid() != process:  # a worker that this one has forked ends with it, or when told
            if number != signal.SIGTERM:
                return
        elif requested() is not None or ask(number, late) is not None:
            return
        signal.signal(number, signal.SIG_DFL)
        os.kill(os.getpid(), number)

    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        if signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, told)
    try:
        yield
    except Stopped:
        for stream in (sys.stdout, sys.stderr):
            with suppress(OSError, ValueError):
                stream.flush()
        os._exit(TERMINATED)


def _is_main_thread() -> bool:
    return threading.current_thread() is threading.main_thread()
