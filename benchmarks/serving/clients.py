"""Clients that ask at the same time, and what they were told."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import aiohttp

from benchmarks.serving.asked import Question

AGAIN = (429, 503)


@dataclass
class Told:
    """The answer to one request.

    Attributes:
        error: why there is none.
        tries: requests that it took.
        ended: when, on the monotonic clock.
    """

    number: int
    text: str = ""
    tokens: int = 0
    seconds: float = 0.0
    first_seconds: float = 0.0
    error: str = ""
    tries: int = 1
    ended: float = field(default=0.0)


async def ask_all(
    address: str,
    model: str,
    questions: Sequence[Question],
    clients: int,
    *,
    tries: int = 1,
    told: list[Told] | None = None,
) -> list[Told]:
    """Asks questions by so many clients, each one question after the other; every second streams.

    Args:
        tries: how often a question is asked whose connection broke or that was sent away.
        told: gets the answers as they come.
    """
    waiting = iter(enumerate(questions))
    told = [] if told is None else told
    connector = aiohttp.TCPConnector(limit=0)
    async with aiohttp.ClientSession(connector=connector, trust_env=False) as session:

        async def client() -> None:
            for number, question in waiting:
                body = question.body(model, stream=number % 2 == 1)
                told.append(await _asked(session, address, number, body, tries))

        await asyncio.gather(*(client() for _ in range(clients)))
    return sorted(told, key=lambda one: one.number)


async def _asked(
    session: aiohttp.ClientSession, address: str, number: int, body: dict[str, Any], tries: int
) -> Told:
    found = Told(number)
    for found.tries in range(1, tries + 1):
        start = time.monotonic()
        try:
            url = f"{address}/v1/chat/completions"
            async with session.post(url, json=body) as response:
                if response.status != 200:
                    found.error = f"{response.status}: {(await response.text())[:200]}"
                    if response.status not in AGAIN:
                        return found
                else:
                    await _read(response, found, start)
        except (TimeoutError, aiohttp.ClientError, OSError) as error:
            found.error = type(error).__name__
        found.ended = time.monotonic()
        found.seconds = found.ended - start
        if not found.error:
            return found
        await asyncio.sleep(0.5)
    return found


async def _read(response: aiohttp.ClientResponse, found: Told, start: float) -> None:
    found.text, found.error = "", ""
    if not response.content_type.startswith("text/event-stream"):
        content = await response.json()
        found.text = content["choices"][0]["message"]["content"]
        found.tokens = content["usage"]["completion_tokens"]
        return
    whole = False
    async for line in response.content:
        data = line.removeprefix(b"data: ").strip()
        if not data:
            continue
        if data == b"[DONE]":
            whole = True
            continue
        content = json.loads(data)
        if "error" in content:
            found.error = content["error"]["message"]
            return
        if content["usage"]:
            found.tokens = content["usage"]["completion_tokens"]
        for choice in content["choices"]:
            if choice["delta"].get("content") and not found.first_seconds:
                found.first_seconds = time.monotonic() - start
            found.text += choice["delta"].get("content", "")
    if not whole:
        found.error = "a stream without an end"
