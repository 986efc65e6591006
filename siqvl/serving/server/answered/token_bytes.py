"""Tokens as OpenAI's log-probabilities name them: as text, and by the bytes they stand for."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import Any

from siqvl.generation.request import TokenLogprob
from siqvl.model.processing import SiQVLProcessor

#: What stands for minus infinity, which JSON does not have.
IMPOSSIBLE = -9999.0


def _bytes_of_letters() -> dict[str, int]:
    """The byte that each letter of a byte-level vocabulary stands for (GPT-2's table).

    Printable bytes stand for themselves, the others for the letters from U+0100 on.
    """
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = [byte for byte in range(0x100) if byte not in printable]
    letters = {chr(byte): byte for byte in printable}
    return letters | {chr(0x100 + place): byte for place, byte in enumerate(others)}


LETTERS = _bytes_of_letters()


@lru_cache(maxsize=2**16)  # asking the tokenizer takes longer than a token may
def token_bytes(token: int, processor: SiQVLProcessor) -> bytes:
    """Returns the bytes of one token, which need not be whole characters."""
    tokenizer = processor.tokenizer
    letters = tokenizer.convert_ids_to_tokens(token)
    if letters is None:  # a row of the embedding that no token has
        return b""
    if token in tokenizer.added_tokens_decoder or not all(one in LETTERS for one in letters):
        return str(letters).encode()
    return bytes(LETTERS[one] for one in letters)


def logprobs_content(
    tokens: Sequence[TokenLogprob], ends: frozenset[int], processor: SiQVLProcessor
) -> list[dict[str, Any]]:
    """Returns the entries of `logprobs.content`; end tokens are no part of an answer."""
    return [
        {
            **_named(one.id, one.logprob, processor),
            "top_logprobs": [_named(token, value, processor) for token, value in one.top],
        }
        for one in tokens
        if one.id not in ends
    ]


def _named(token: int, logprob: float, processor: SiQVLProcessor) -> dict[str, Any]:
    found = token_bytes(token, processor)
    return {
        "token": found.decode("utf-8", "replace"),
        "logprob": max(logprob, IMPOSSIBLE),
        "bytes": list(found),
    }
