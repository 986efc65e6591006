"""Work shared out to processes: results come in order, and a killed parent leaves none behind."""

from __future__ import annotations

import os
import signal
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from itertools import islice
from multiprocessing import get_context, parent_process
from typing import Any, TypeVar

from siqvl.errors import UserError

QUEUED = 3  # pieces of work of a worker: the one it does, and others that wait for it

Item = TypeVar("Item")
Result = TypeVar("Result")


def processes_with(tool: object, count: int) -> ProcessPoolExecutor:
    """Some processes, each with its own copy of `tool`."""
    # spawn: a forked child can inherit a lock held by a thread of torch or grpc, and hang
    context = get_context("spawn")
    return ProcessPoolExecutor(count, mp_context=context, initializer=_begin, initargs=(tool,))


def in_order(
    pool: ProcessPoolExecutor,
    function: Callable[..., Result],
    arguments: Iterable[tuple[Any, ...]],
    *,
    ahead: int,
) -> Iterator[Result]:
    """`function(tool, *each)` for each of the arguments, with at most `ahead` of them in flight.

    Raises:
        UserError: a process died; or whatever the function raised.
    """
    waiting: deque[Future[Result]] = deque()
    with _all_ended(waiting):
        for each in arguments:
            waiting.append(pool.submit(_work, function, each))
            if len(waiting) > ahead:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()


def shared_out(
    pool: ProcessPoolExecutor,
    ready: Future[None],
    tool: object,
    function: Callable[..., Result],
    arguments: Iterable[tuple[Any, ...]],
    *,
    ahead: int,
    workers: int,
) -> Iterator[Result]:
    """As `in_order`, with this process at work too: with each that finds all workers busy.

    Args:
        ready: of `started`; before the first worker has begun, this process does all there is.
        ahead: results that may be there, or on their way, before the first of them is given.
        workers: processes of the pool; each has QUEUED pieces of work before it, so that it need
            not wait until this process is through with its own and with what it makes of results.
            At the end they are fewer, or this process would have nothing to do.
    """
    waiting: deque[Future[Result]] = deque()
    with _all_ended(waiting):
        for each, left in _with_left(arguments, QUEUED):
            busy = sum(not future.done() for future in waiting)
            if ready.done() and busy < left * workers:
                ready.result()
                waiting.append(pool.submit(_work, function, each))
            else:
                waiting.append(_done(function, tool, each))
            while waiting and (waiting[0].done() or len(waiting) > ahead):
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()


@contextmanager
def _all_ended(waiting: deque[Future[Result]]) -> Iterator[None]:
    """Leaves no work behind that nobody waits for; a process that died is a UserError."""
    try:
        yield
    except BrokenProcessPool:
        raise UserError(
            "a worker process died, most likely for lack of memory; lower `data.processes` and "
            "run again"
        ) from None
    finally:
        for future in waiting:
            future.cancel()


def _with_left(items: Iterable[Item], most: int) -> Iterator[tuple[Item, int]]:
    """Each item, and how many are left with it: the last one has 1, and none more than `most`."""
    rest = iter(items)
    known = deque(islice(rest, most - 1))
    for following in rest:
        known.append(following)
        yield known.popleft(), most
    while known:
        left = len(known)
        yield known.popleft(), left


def started(pool: ProcessPoolExecutor) -> Future[None]:
    """Start the processes of a pool; done when the first of them has begun."""
    return pool.submit(_nothing)


def _nothing() -> None:
    pass


def _done(
    function: Callable[..., Result], tool: object, arguments: tuple[Any, ...]
) -> Future[Result]:
    """What the function gives or raises, to be told in its turn."""
    done: Future[Result] = Future()
    try:
        done.set_result(function(tool, *arguments))
    except Exception as error:
        done.set_exception(error)
    return done


_tool: object = None  # of a worker process


def _begin(tool: object) -> None:
    global _tool
    _tool = tool
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the parent, with which this ends
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    """A killed parent closes no queue, and its workers would wait for work forever."""
    parent = parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)


def _work(function: Callable[..., Result], arguments: tuple[Any, ...]) -> Result:
    return function(_tool, *arguments)
