"""What does not belong into the log of a pod: Kubernetes takes its end for the reason of a failure.

flytekit leaves the sessions of the blob store open, and every one says so when it is taken apart,
as an error in flytekit's log or, from fsspec's own loop, in asyncio's. The end of the process
closes them.
"""

from __future__ import annotations

import logging
import os

UNCLOSED = ("Unclosed client session", "Unclosed connector")  # aiohttp 3's words


def keep_clear() -> None:
    """Keep these lines out of the log of this process; all others are there."""
    from flytekit.loggers import logger

    # where a run is to be seen, which MLflow prints whenever one ends
    os.environ.setdefault("MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT", "true")
    # that it waits for the registry, and validates an example
    os.environ.setdefault("MLFLOW_LOGGING_LEVEL", "WARNING")
    for one in (logger, logging.getLogger("asyncio")):
        one.addFilter(_is_ours_to_know)


def _is_ours_to_know(record: logging.LogRecord) -> bool:
    return not any(words in record.getMessage() for words in UNCLOSED)
