"""The process that serves: how it begins, what it does about clients that dawdle, how it ends."""

from __future__ import annotations

import asyncio
import logging
import time
from types import FrameType

import h11
import uvicorn
from uvicorn.protocols.http.h11_impl import H11Protocol

from siqvl.serving.server.application import application
from siqvl.serving.server.service import Service

#: Between the end of the engine and that of the process, for who is told so.
LAST_SECONDS = 3
LEAST_CONNECTIONS = 512

_log = logging.getLogger("siqvl.serve")


class Server(uvicorn.Server):
    """Ends on SIGTERM and SIGINT when running answers have, within `stop_seconds`.

    Until then whoever comes is told that it ends, so that a balancer sends them elsewhere. A second
    signal ends it at once.
    """

    def __init__(self, service: Service) -> None:
        settings = service.settings
        config = uvicorn.Config(
            application(service),
            host=settings.host,
            port=settings.port,
            http=_protocol(settings.body_seconds, settings.max_body_bytes),
            ws="none",
            lifespan="off",
            loop="asyncio",
            access_log=False,
            log_config=None,
            server_header=False,
            proxy_headers=False,
            timeout_graceful_shutdown=LAST_SECONDS,
            limit_concurrency=LEAST_CONNECTIONS + 4 * (settings.places or 0) + settings.waiting,
        )
        super().__init__(config)
        self._service = service
        self._stopping: float | None = None  # since when

    async def startup(self, sockets: list | None = None) -> None:
        """Listens, and says where."""
        await super().startup(sockets)
        host, port = self.servers[0].sockets[0].getsockname()[:2]
        where = f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"
        _log.info("%s answers at %s", self._service.name, where)

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Takes a signal."""
        if self._service.door.closed:
            self.should_exit = self.force_exit = True
        self._service.door.closed = True

    async def on_tick(self, counter: int) -> bool:
        """Looks, ten times a second, whether the end has come."""
        door = self._service.door
        if door.closed and not self.should_exit:
            if self._stopping is None:
                self._stopping = time.monotonic()
                _log.info("stopping: %d answers are running", door.inside)
            late = time.monotonic() - self._stopping > self._service.settings.stop_seconds
            if late and door.inside:
                _log.warning("%d answers did not end in time", door.inside)
                await asyncio.to_thread(self._service.engine.close)
            self.should_exit = late or not door.inside
        return await super().on_tick(counter)


def _protocol(seconds: float, most_bytes: int) -> type[H11Protocol]:
    """A connection that is closed when the head of a request does not arrive in time.

    It is closed, too, when more than `most_bytes` arrive for a request that has been refused: fewer
    are dropped, so that who sends them reads why. uvicorn 0.54 waits and reads on for ever.
    """

    class Impatient(H11Protocol):
        _deadline: asyncio.TimerHandle | None = None
        _dropped = 0

        def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
            super().connection_made(transport)
            self._wait()

        def data_received(self, data: bytes) -> None:
            super().data_received(data)
            if self._is_answering():
                self._wait_no_more()
                self._dropped = 0
                return
            self._dropped += len(data)
            if self._dropped > most_bytes:
                self.transport.close()
            elif self._deadline is None:
                self._wait()

        def connection_lost(self, exc: Exception | None) -> None:
            self._wait_no_more()
            super().connection_lost(exc)

        def _is_answering(self) -> bool:
            return self.cycle is not None and not self.cycle.response_complete

        def _wait(self) -> None:
            self._deadline = self.loop.call_later(seconds, self._give_up)

        def _wait_no_more(self) -> None:
            if self._deadline is not None:
                self._deadline.cancel()
                self._deadline = None

        def _give_up(self) -> None:
            self._deadline = None
            idle = self.conn.their_state is h11.IDLE and self.timeout_keep_alive_task is not None
            if not self._is_answering() and not idle:
                self.transport.close()

    return Impatient
