"""`POST /v1/chat/completions`: a request from its first byte to the last of its answer."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Sequence
from contextlib import suppress
from typing import Any, NamedTuple

from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse
from starlette.types import Receive, Scope, Send

from siqvl.data.encode import encode_prompt
from siqvl.data.encoded import Item
from siqvl.data.schema import Row
from siqvl.errors import UserError
from siqvl.generation.engine import Busy
from siqvl.generation.request import Sampling
from siqvl.serving.server.answered.chat_objects import ChatObjects, choice, event, usage
from siqvl.serving.server.answered.completing import Completing
from siqvl.serving.server.answered.listening import Gone, while_listening
from siqvl.serving.server.answered.token_bytes import logprobs_content
from siqvl.serving.server.asked.chat_messages import read_row
from siqvl.serving.server.asked.chat_parameters import ChatParameters
from siqvl.serving.server.asked.request_body import read_object
from siqvl.serving.server.refusals import Refused, failed, too_late
from siqvl.serving.server.service import Service

#: Status that the log and the metrics have where whoever asked was gone (nginx's).
GONE = 499
LAST_WORD_SECONDS = 2.0  # for the error that ends a stream
STREAM = [
    (b"content-type", b"text/event-stream; charset=utf-8"),
    (b"cache-control", b"no-cache"),
    (b"x-accel-buffering", b"no"),  # or a proxy keeps pieces until there are many
]

_log = logging.getLogger(__name__)


class Asked(NamedTuple):
    """A request that the engine can take."""

    parameters: ChatParameters
    item: Item
    samplings: list[Sampling]


class Chat:
    """The ASGI application of this path."""

    def __init__(self, service: Service) -> None:
        self._service = service

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answers one request; nothing is raised."""
        answer = _Answer(self._service, scope, receive, send)
        try:
            await answer.give()
        except (Gone, ClientDisconnect):
            scope["state"]["status"] = GONE
        except Refused as refused:
            await answer.refuse(refused)
        except TimeoutError:
            await answer.refuse(too_late(self._service.settings.request_seconds))
        except Exception:
            _log.exception("a request failed")
            await answer.refuse(failed())


class _Answer:
    """The answer to one request."""

    def __init__(self, service: Service, scope: Scope, receive: Receive, send: Send) -> None:
        self._service = service
        self._request = Request(scope, receive)
        self._scope, self._receive, self._send = scope, receive, send
        self._start = time.monotonic()
        self._streams = False

    async def give(self) -> None:
        service = self._service
        service.keys.check(self._request.headers.get("authorization"))
        with service.door.visit():
            async with asyncio.timeout(service.settings.request_seconds):
                with service.door.holding() as held:
                    content = await read_object(self._request, service.settings, held)
                    parameters, row = await asyncio.to_thread(self._read, content)
                    del content  # texts of pictures, which are large
                    # whoever leaves while pictures are decoded is noticed as well
                    asked = await while_listening(self._receive, self._prepared(parameters, row))
                    del row
                await while_listening(self._receive, self._written(asked))
        took = time.monotonic() - self._start
        service.door.took(took)
        service.metrics.seconds.observe(took)

    async def refuse(self, refused: Refused) -> None:
        """Says why there is no answer, or no more of it."""
        if not self._streams:
            await refused.response(self._scope, self._receive, self._send)
            return
        with suppress(TimeoutError, OSError):  # whoever does not read is not waited for
            async with asyncio.timeout(LAST_WORD_SECONDS):
                await self._tell(event(refused.content))
                await self._tell(b"", more=False)

    def _read(self, content: dict[str, Any]) -> tuple[ChatParameters, Row]:
        service = self._service
        parameters = ChatParameters.read(content, service.settings)
        if parameters.model != service.name:
            raise Refused(
                404,
                f"there is no model `{parameters.model[:100]}` here; there is `{service.name}`",
                param="model",
                code="model_not_found",
            )
        row = read_row(parameters.messages, service.limits)
        return parameters.model_copy(update={"messages": []}), row

    async def _prepared(self, parameters: ChatParameters, row: Row) -> Asked:
        service = self._service
        pixels = await service.pictures.pixels(row["images"])
        service.metrics.pictures.inc(len(row["images"]))
        row["images"] = [None] * len(row["images"])
        ids = await asyncio.to_thread(self._ids, row)
        samplings = parameters.samplings(service.settings, len(ids), service.engine.max_length)
        return Asked(parameters, {"input_ids": ids, "pixel_values": pixels}, samplings)

    def _ids(self, row: Row) -> list[int]:
        return encode_prompt(row, self._service.processor).input_ids

    async def _written(self, asked: Asked) -> None:
        service, prompt = self._service, len(asked.item["input_ids"])
        try:
            completing = Completing(service.engine, asked.item, asked.samplings)
        except Busy as error:
            raise service.door.busy(error.message.partition(";")[0]) from None
        except UserError as error:
            raise Refused(400, error.message, param="messages") from None
        service.metrics.prompt_tokens.inc(prompt)
        try:
            told = self._streamed if asked.parameters.stream else self._whole
            await told(asked, completing, prompt)
        finally:
            completing.cancel()
            service.metrics.completion_tokens.inc(sum(completing.written))
            for tokens in completing.written:
                service.metrics.answer_tokens.observe(tokens)

    async def _whole(self, asked: Asked, completing: Completing, prompt: int) -> None:
        count = len(asked.samplings)
        texts: list[list[str]] = [[] for _ in range(count)]
        tokens: list[list[Any]] = [[] for _ in range(count)]
        finish: list[str | None] = [None] * count
        async for number, piece in completing.pieces():
            self._first()
            texts[number].append(piece.text)
            tokens[number] += piece.tokens
            finish[number] = piece.finish
        choices = [
            choice(number, "".join(texts[number]), self._logprobs(asked, one), finish[number])
            for number, one in enumerate(tokens)
        ]
        objects = ChatObjects(self._service.name)
        content = objects.completion(choices, usage(prompt, completing.written))
        await JSONResponse(content)(self._scope, self._receive, self._send)

    async def _streamed(self, asked: Asked, completing: Completing, prompt: int) -> None:
        with_usage = asked.parameters.with_usage
        objects = ChatObjects(self._service.name, with_usage=with_usage)
        await self._send({"type": "http.response.start", "status": 200, "headers": STREAM})
        self._streams = True
        for number in range(len(asked.samplings)):
            await self._tell(objects.chunk(number, {"role": "assistant", "content": ""}))
        async for number, piece in completing.pieces():
            self._first()
            delta = {"content": piece.text} if piece.text else {}
            logprobs = self._logprobs(asked, piece.tokens)
            await self._tell(objects.chunk(number, delta, logprobs, piece.finish))
        if with_usage:
            await self._tell(objects.usage_chunk(usage(prompt, completing.written)))
        await self._tell(event("[DONE]"))
        await self._tell(b"", more=False)

    def _logprobs(self, asked: Asked, tokens: Sequence[Any]) -> list[dict[str, Any]] | None:
        if not asked.parameters.logprobs:
            return None
        return logprobs_content(tokens, self._service.ends, self._service.processor)

    def _first(self) -> None:
        """Notes when the first text of an answer came."""
        if "first" not in self._scope["state"]:
            self._scope["state"]["first"] = True
            self._service.metrics.first_seconds.observe(time.monotonic() - self._start)

    async def _tell(self, data: bytes, *, more: bool = True) -> None:
        await self._send({"type": "http.response.body", "body": data, "more_body": more})
