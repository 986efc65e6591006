"""Clients that dawdle, leave or send what is no request, while others ask as they should."""

from __future__ import annotations

import asyncio
import json
from contextlib import suppress
from typing import Any

from benchmarks.serving.asked import Question

HEAD = (
    b"POST /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
)


async def misbehave(port: int, model: str, question: Question, until: asyncio.Event) -> int:
    """Goes on with all kinds of it until told to end; returns how many connections there were."""
    body = json.dumps(question.body(model, stream=True)).encode()
    head = HEAD + f"Content-Length: {len(body)}\r\n\r\n".encode()
    kinds: list[tuple[bytes, float, bool]] = [
        # what is sent, seconds that the connection stays, whether anything is read
        (b"", 3.0, False),
        (HEAD[:40], 3.0, False),
        (head + body[: len(body) // 2], 3.0, False),
        (head + body, 0.3, True),  # leaves within the stream
        (head + body, 5.0, False),  # reads nothing
        (head + body[:-1] + b"?", 1.0, True),
        (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" * 20, 1.0, True),  # TLS
        (HEAD + b"Transfer-Encoding: chunked\r\n\r\nzz\r\n", 1.0, True),
        (HEAD + b"Content-Length: 99999999999\r\n\r\n{", 1.0, True),
    ]
    made = 0

    async def go_on(sent: bytes, seconds: float, reads: bool) -> None:
        nonlocal made
        while not until.is_set():
            with suppress(OSError):
                await _connected(port, sent, seconds, reads)
                made += 1

    await asyncio.gather(*(go_on(*kind) for kind in kinds))
    return made


async def _connected(port: int, sent: bytes, seconds: float, reads: bool) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        writer.write(sent)
        waits: Any = reader.read(-1) if reads else asyncio.sleep(seconds)
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await waits
    finally:
        writer.transport.abort()
