"""Work shared out to processes: results come in order, and a killed parent leaves none behind."""

from __future__ import annotations

import os
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from multiprocessing import get_context, parent_process
from typing import Any, TypeVar

from siqvl.errors import UserError

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
    try:
        for each in arguments:
            waiting.append(pool.submit(_work, function, each))
            if len(waiting) > ahead:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    except BrokenProcessPool:
        raise UserError(
            "a worker process died, most likely for lack of memory; lower `data.processes` and run "
            "again"
        ) from None
    finally:
        for future in waiting:
            future.cancel()


_tool: object = None  # of a worker process


def _begin(tool: object) -> None:
    global _tool
    _tool = tool
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    """A killed parent closes no queue, and its workers would wait for work forever."""
    parent = parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)


def _work(function: Callable[..., Result], arguments: tuple[Any, ...]) -> Result:
    return function(_tool, *arguments)
