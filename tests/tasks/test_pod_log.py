"""The log of a pod has what has happened, and nothing about sessions that were not closed."""

import logging
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tasks.pod_log import LEVEL, logging_level

ROOT = Path(__file__).parents[2]
SAYS = """
import logging
from flytekit.loggers import logger
logger.error("before: {'message': 'Unclosed client session'}")
logger.error("before: an error")
import tasks
for one in (logger, logging.getLogger("asyncio")):
    one.error("caught exception: {'message': 'Unclosed client session'}")
    one.error("Unclosed connector")
    one.error("out of memory in %s", one.name)
logger.warning("a warning")
logger.info("an information")
"""


def said(**variables: str) -> str:
    """What a pod's process logs, before and after it imports the tasks."""
    done = subprocess.run(
        [sys.executable, "-c", SAYS],
        cwd=ROOT,
        env=os.environ | {"FLYTE_INTERNAL_EXECUTION_ID": "abc"} | variables,
        capture_output=True,
        text=True,
        check=True,
    )
    return done.stderr


def test_a_pod_logs_all_but_unclosed_sessions(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(LEVEL, raising=False)
    log = said(**logging_level())
    assert "Unclosed" not in log
    assert "before" not in log  # nothing of ours is there yet
    for words in ("out of memory in flytekit", "out of memory in asyncio", "a warning"):
        assert words in log
    assert "an information" not in log


def test_a_level_of_who_registers_is_theirs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(LEVEL, str(logging.INFO))
    log = said(**logging_level())
    assert "before: an error" in log
    assert "an information" in log
