"""What does not belong into the log of a pod: Kubernetes takes its end for the reason of a failure.

flytekit leaves the sessions of the blob store open, and every one says so when Python ends, as an
error in flytekit's log or, from fsspec's own loop, in asyncio's. The end of the process closes
them.
"""

from __future__ import annotations

import logging

UNCLOSED = ("Unclosed client session", "Unclosed connector")  # aiohttp 3's words


def without_unclosed(record: logging.LogRecord) -> bool:
    """Let all through that is not about sessions which were not closed."""
    return not any(words in record.getMessage() for words in UNCLOSED)


def keep_clear() -> None:
    """Keep these lines out of the log of this process; all others stay."""
    from flytekit.loggers import logger

    for one in (logger, logging.getLogger("asyncio")):
        one.addFilter(without_unclosed)
