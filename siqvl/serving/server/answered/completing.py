"""The choices of one request, as the engine's thread writes them and the server's loop reads."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import suppress
from functools import partial

from siqvl.data.encoded import Item
from siqvl.generation.engine import Engine, Ticket
from siqvl.generation.request import Piece, Sampling
from siqvl.serving.server.refusals import failed, stopping


class Completing:
    """Hands a request over to the engine; `cancel` takes back what is not finished.

    Args:
        samplings: of each choice.

    Raises:
        Busy: as many wait as may.
        UserError: the engine does not take it.
    """

    def __init__(self, engine: Engine, item: Item, samplings: Sequence[Sampling]) -> None:
        self._loop = asyncio.get_running_loop()
        self._pieces: asyncio.Queue[tuple[int, Piece]] = asyncio.Queue()
        self._unfinished: dict[int, Ticket] = {}
        self.written = [0] * len(samplings)  # tokens of each choice
        try:
            for number, sampling in enumerate(samplings):
                tell = partial(self._tell, number)
                self._unfinished[number] = engine.submit(item, sampling, tell)
        except BaseException:
            self.cancel()
            raise

    def cancel(self) -> None:
        """Ends what is not finished."""
        for ticket in self._unfinished.values():
            ticket.cancel()
        self._unfinished.clear()

    async def pieces(self) -> AsyncIterator[tuple[int, Piece]]:
        """Yields the number of a choice and what was written of it, until all are finished.

        Raises:
            Refused: the engine failed, or the server stops.
        """
        while self._unfinished:
            number, piece = await self._pieces.get()
            self.written[number] = piece.written
            if piece.finish:
                self._unfinished.pop(number, None)
            if piece.finish == "error":
                raise failed()
            if piece.finish == "cancelled":
                raise stopping()
            yield number, piece

    def _tell(self, number: int, piece: Piece) -> None:
        """Called by the engine's thread."""
        with suppress(RuntimeError):  # the loop has ended, and with it whoever listened
            self._loop.call_soon_threadsafe(self._pieces.put_nowait, (number, piece))
