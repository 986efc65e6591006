"""A task on a cluster that keeps its own time, `compute.<kind>.timeout_minutes`.

Flyte's time-out is of no use for long work: it counts while a pod waits for a machine, ends all
attempts after twice the time, and says of what it ended `Dynamic workflow failed`. A task that
runs alone has none at all. So here an attempt has its time from when it begins to work. Then it
ends with a sentence, its last state kept, and is not tried again: the same work would take as long.
One that does not end even so, because it hangs, is killed, which Flyte takes for a lost pod.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from types import FrameType

from siqvl.errors import UserError
from siqvl.recipe import Recipe
from tasks.last_chance import kind_of_pod

#: Seconds in which what is open is closed, before the process is killed.
CLOSING = 300.0
#: As of the command `timeout`.
EXIT_CODE = 124


@contextmanager
def time_limited(recipe: Recipe) -> Iterator[None]:
    """Work that ends when its time is over; outside of a cluster it has all the time it takes.

    Raises:
        UserError: the time is over.
    """
    kind = kind_of_pod()
    minutes = recipe.compute.of(kind).timeout_minutes if kind else None
    if minutes is None or threading.current_thread() is not threading.main_thread():
        yield
        return
    message = (
        f"the time of this task is over, compute.{kind}.timeout_minutes: {minutes}; raise it and "
        "recover the execution, which goes on from the last state"
    )
    over = threading.Event()

    def end(number: int, frame: FrameType | None) -> None:
        raise UserError(message)

    before = signal.signal(signal.SIGALRM, end)
    signal.setitimer(signal.ITIMER_REAL, minutes * 60.0)
    # a thread hears of it, too, where the main one hangs outside of Python
    watch = threading.Timer(minutes * 60.0, _kill_unless, (over, message))
    watch.daemon = True
    watch.start()
    try:
        yield
    finally:
        over.set()
        watch.cancel()
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def _kill_unless(over: threading.Event, message: str) -> None:
    """End this process where it has not ended by itself a while after its time."""
    if over.wait(CLOSING):
        return
    with suppress(OSError, ValueError):
        print(f"{message}; the process hangs, and is killed", file=sys.stderr, flush=True)
    os._exit(EXIT_CODE)
