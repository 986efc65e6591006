"""Work for somebody who may go away: it ends when they do."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any, TypeVar

from starlette.types import Receive

T = TypeVar("T")


class Gone(Exception):
    """Whoever asked does not listen any more."""


async def while_listening(receive: Receive, work: Coroutine[Any, Any, T]) -> T:
    """Does work until the client is gone.

    Args:
        receive: of a request whose body has been read.

    Raises:
        Gone: the client was gone first; the work was cancelled.
    """
    doing = asyncio.create_task(work)
    leaving = asyncio.create_task(_left(receive))
    try:
        await asyncio.wait({doing, leaving}, return_when=asyncio.FIRST_COMPLETED)
        if doing.done():
            return doing.result()
        raise Gone
    finally:
        for task in (doing, leaving):
            task.cancel()
        await asyncio.gather(doing, leaving, return_exceptions=True)


async def _left(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
