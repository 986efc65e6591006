"""The body of a request, read up to a limit and within a time, as a JSON object."""

from __future__ import annotations

import asyncio
from typing import Any

from pydantic_core import from_json
from starlette.requests import Request

from siqvl.serving.server.door import Held
from siqvl.serving.server.refusals import Refused
from siqvl.serving.server.server_settings import ServerSettings


async def read_object(request: Request, settings: ServerSettings, held: Held) -> dict[str, Any]:
    """Reads a JSON object.

    Args:
        held: counts its bytes, while they are read.

    Raises:
        Refused: no JSON object, too large or too slow.
        ClientDisconnect: whoever sent it is gone.
    """
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind != "application/json":  # what a page of another site may send without being asked
        raise Refused(415, "send JSON, with the header `Content-Type: application/json`")
    if request.headers.get("content-encoding", "identity").lower() != "identity":
        raise Refused(415, "a compressed body is not read; send it as it is")
    said = request.headers.get("content-length", "")
    if said.isdigit() and int(said) > settings.max_body_bytes:
        raise _too_large(settings)
    body = bytearray()
    try:
        async with asyncio.timeout(settings.body_seconds):
            async for some in request.stream():
                if len(body) + len(some) > settings.max_body_bytes:
                    raise _too_large(settings)
                held.add(len(some))
                body += some
    except TimeoutError:
        raise Refused(
            408, f"the request did not arrive within {settings.body_seconds:g} s"
        ) from None
    return await asyncio.to_thread(_object, bytes(body))


def _object(body: bytes) -> dict[str, Any]:
    try:
        found = from_json(body, allow_inf_nan=False, cache_strings="none")
    except ValueError:
        raise Refused(400, "the body is no JSON (in UTF-8)") from None
    if not isinstance(found, dict):
        raise Refused(400, "the body is no JSON object")
    return found


def _too_large(settings: ServerSettings) -> Refused:
    return Refused(
        413, f"the request has more than {settings.max_body_bytes:,} bytes", code="too_large"
    )
