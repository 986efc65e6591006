"""What is noted of every request, whichever path it asks for, and what every answer says."""

from __future__ import annotations

import logging
import secrets
import time

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from siqvl.serving.server.refusals import Refused
from siqvl.serving.server.service import Service

PATHS = ("/", "/health", "/ready", "/metrics", "/v1/models", "/v1/chat/completions")
LOOPBACK = ("localhost", "127.0.0.1", "[::1]")

_log = logging.getLogger("siqvl.serve")


class Observed:
    """ASGI application around another: a line in the log, a count, and who may ask at all."""

    def __init__(self, app: ASGIApp, service: Service) -> None:
        self._app, self._service = app, service

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Passes one request on."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        state = scope.setdefault("state", {})
        start, name = time.monotonic(), f"req_{secrets.token_hex(8)}"

        async def noted(message: Message) -> None:
            if message["type"] == "http.response.start":
                state.setdefault("status", message["status"])
                headers = [
                    *message.get("headers", []),
                    (b"x-request-id", name.encode()),
                    (b"x-content-type-options", b"nosniff"),
                ]
                message = {**message, "headers": headers}
            await send(message)

        if self._is_of_another_site(scope):
            said = "this server answers on this machine alone; open it as http://localhost"
            await Refused(403, said).response(scope, receive, noted)
        else:
            await self._app(scope, receive, noted)
        self._note(scope, name, time.monotonic() - start)

    def _note(self, scope: Scope, name: str, seconds: float) -> None:
        path = scope["path"] if scope["path"] in PATHS else "other"
        status = scope["state"].get("status", 500)
        self._service.metrics.requests.labels(path, f"{status}").inc()
        quiet = path in ("/health", "/ready", "/metrics")
        level = logging.DEBUG if quiet else logging.INFO
        _log.log(level, "%s %s %s %s %.3f s", name, scope["method"], path, status, seconds)

    def _is_of_another_site(self, scope: Scope) -> bool:
        """Whether a page of the web reaches us by a name that it made ours (DNS rebinding)."""
        if self._service.settings.open or len(self._service.keys):
            return False
        host = Headers(scope=scope).get("host", "")
        name = host if host.endswith("]") else host.rpartition(":")[0] or host
        return name.lower() not in (*LOOPBACK, self._service.settings.host)
