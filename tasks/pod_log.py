"""What does not belong into the log of a pod: Kubernetes takes its end for the reason of a failure.

flytekit leaves the sessions of the blob store open, and every one says so when Python ends, as an
error in flytekit's log or, from fsspec's own loop, in asyncio's. The end of the process closes
them. Two processes of a pod do so: the one that fetches the code, in which nothing is ours but the
environment, and the one that runs the task. The first is to log nothing; what goes wrong in it
ends it with a trace of Python's own. The second logs again what it should.
"""

from __future__ import annotations

import logging
import os

UNCLOSED = ("Unclosed client session", "Unclosed connector")  # aiohttp 3's words
LEVEL = "FLYTE_SDK_LOGGING_LEVEL"
NOTHING = str(logging.CRITICAL)


def logging_level() -> dict[str, str]:
    """Return the environment of pods as to flytekit's log; a level of who registers is theirs."""
    return {LEVEL: os.environ.get(LEVEL) or NOTHING}


def keep_clear() -> None:
    """Keep these lines out of the log of this process; all others are there."""
    from flytekit.loggers import logger

    # where a run is to be seen, which MLflow prints whenever one ends
    os.environ.setdefault("MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT", "true")
    if os.environ.get(LEVEL) == NOTHING:
        logger.setLevel(logging.WARNING)  # flytekit's default
    for one in (logger, logging.getLogger("asyncio")):
        one.addFilter(_is_ours_to_know)


def _is_ours_to_know(record: logging.LogRecord) -> bool:
    return not any(words in record.getMessage() for words in UNCLOSED)
