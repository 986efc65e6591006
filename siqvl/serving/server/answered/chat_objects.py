"""The JSON objects of `/v1/chat/completions`: a whole answer, and the chunks of a stream."""

from __future__ import annotations

import json
import secrets
import time
from typing import Any


class ChatObjects:
    """The objects of one answer, which share id, time and model."""

    def __init__(self, model: str, *, with_usage: bool = False) -> None:
        self._head = {
            "id": f"chatcmpl-{secrets.token_hex(12)}",
            "created": int(time.time()),
            "model": model,
        }
        self._with_usage = with_usage

    def completion(self, choices: list[dict[str, Any]], usage: dict[str, int]) -> dict[str, Any]:
        """Returns a whole answer."""
        return {**self._head, "object": "chat.completion", "choices": choices, "usage": usage}

    def chunk(
        self,
        number: int,
        delta: dict[str, str],
        logprobs: list[dict[str, Any]] | None = None,
        finish: str | None = None,
    ) -> bytes:
        """Returns an event that adds to a choice."""
        choice = {
            "index": number,
            "delta": delta,
            "logprobs": None if logprobs is None else {"content": logprobs, "refusal": None},
            "finish_reason": finish,
        }
        return self._event([choice], None)

    def usage_chunk(self, usage: dict[str, int]) -> bytes:
        """Returns the event that ends a stream with the counts of its tokens."""
        return self._event([], usage)

    def _event(self, choices: list[dict[str, Any]], usage: dict[str, int] | None) -> bytes:
        content = {**self._head, "object": "chat.completion.chunk", "choices": choices}
        return event(content | ({"usage": usage} if self._with_usage else {}))


def choice(
    number: int, text: str, logprobs: list[dict[str, Any]] | None, finish: str | None
) -> dict[str, Any]:
    """Returns one of the answers to a request."""
    return {
        "index": number,
        "message": {"role": "assistant", "content": text, "refusal": None},
        "logprobs": None if logprobs is None else {"content": logprobs, "refusal": None},
        "finish_reason": finish,
    }


def usage(prompt: int, written: list[int]) -> dict[str, int]:
    """Counts tokens: of the conversation with its pictures, and of all choices together."""
    total = sum(written)
    return {
        "prompt_tokens": prompt,
        "completion_tokens": total,
        "total_tokens": prompt + total,
    }


def event(content: Any) -> bytes:
    """Writes a server-sent event; a text stands as it is."""
    data = content if isinstance(content, str) else json.dumps(content, ensure_ascii=False)
    return f"data: {data}\n\n".encode()
