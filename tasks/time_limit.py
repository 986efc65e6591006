"""A task on a cluster that keeps its own time, `compute.<kind>.timeout_minutes`.

Flyte's time-out is of no use for long work: it counts while a pod waits for a machine, ends all
attempts after twice the time, and says of what it ended `Dynamic workflow failed`. A task that
runs alone has none at all. So here an attempt has its time from when it begins to work. Then a
training finishes its step and keeps a state, as one that is told to end; other work ends where it
is. It ends with a sentence, and is not tried again: the same work would take as long. One that does
not end even so, because it hangs, is killed, which Flyte takes for a lost pod.
"""

from __future__ import annotations

import os
import re
import signal
import sys
import threading
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from types import FrameType

from siqvl.errors import UserError
from siqvl.recipe import Recipe
from siqvl.training.loop.stop_request import Stopped, ask
from tasks.last_chance import kind_of_pod

#: Seconds in which what is open is closed, before the process is killed.
CLOSING = 300.0
#: As of the command `timeout`.
EXIT_CODE = 124
OVER = "the time of this task is over"
HELPS = "raise it and recover the execution, which goes on from the last state"


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
    message = f"{OVER}, compute.{kind}.timeout_minutes: {minutes}; {HELPS}"
    over = threading.Event()

    def end(number: int, frame: FrameType | None) -> None:
        if ask(number, over.is_set) is None:  # nobody heeds it; if one does, all is said below
            raise UserError(message)

    before = signal.signal(signal.SIGALRM, end)
    signal.setitimer(signal.ITIMER_REAL, minutes * 60.0)
    # a thread hears of it, too, where the main one hangs outside of Python
    watch = threading.Timer(minutes * 60.0, _kill_unless, (over, message))
    watch.daemon = True
    watch.start()
    try:
        yield
    except Stopped as stopped:
        if stopped.args[:1] == (signal.SIGALRM,):
            raise UserError(message) from None
        raise
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


def time_was_over(messages: Iterable[object]) -> str | None:
    """Return the sentence of a process whose time was over, of several that had one task."""
    for message in messages:
        if found := re.search(f"{OVER}.*?{HELPS}", " ".join(str(message).split())):
            return found[0]
    return None
