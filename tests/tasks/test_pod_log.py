"""The log of a pod has what has happened, and nothing about sessions that were not closed."""

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
SAYS = """
import logging
from flytekit.loggers import logger
import tasks
for one in (logger, logging.getLogger("asyncio")):
    one.error("caught exception: {'message': 'Unclosed client session'}")
    one.error("Unclosed connector")
    one.error("out of memory in %s", one.name)
logger.warning("a warning")
logger.info("an information")
"""


def test_a_pod_logs_all_but_unclosed_sessions() -> None:
    done = subprocess.run(
        [sys.executable, "-c", SAYS],
        cwd=ROOT,
        env=os.environ | {"FLYTE_INTERNAL_EXECUTION_ID": "abc"},
        capture_output=True,
        text=True,
        check=True,
    )
    log = done.stderr
    assert "Unclosed" not in log
    for words in ("out of memory in flytekit", "out of memory in asyncio", "a warning"):
        assert words in log
    assert "an information" not in log
