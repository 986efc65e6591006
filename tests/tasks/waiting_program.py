"""A program with an open pipeline that does nothing: `python -m tests.tasks.waiting_program …`.

It says that it waits by writing its process id to a file, so that a test may send signals.
"""

from __future__ import annotations

import os
import signal
import sys
import time
from pathlib import Path

from siqvl.recipe import Recipe
from siqvl.tracking.runs import start_run
from siqvl.training.loop.stop_request import RESERVE, heeding, standing
from tasks.contracts import PipelineRun
from tasks.stopping import stoppable
from tasks.tracked import tracked

SECONDS = 240  # that nobody stops it


def main(recipe: Path, where: str, waits: Path) -> None:
    """Wait in a stage (`stage`), between stages (`between`) or as `nohup` starts programs.

    In `step` it is in a step of a training that does not end.
    """
    if where == "nohup":
        signal.signal(signal.SIGHUP, signal.SIG_IGN)
    loaded = Recipe.load(recipe)
    with stoppable():
        log = start_run(loaded, "pipeline")
    if where == "between":
        wait(waits)
    with tracked(loaded, "stage", PipelineRun(run_id=log.run_id)):
        if where == "step":
            standing.begins(40)
            standing.step = 57
            with heeding(RESERVE + 1.0):
                wait(waits)
        wait(waits)


def wait(waits: Path) -> None:
    Path(f"{waits}.new").write_text(str(os.getpid()))
    Path(f"{waits}.new").rename(waits)
    time.sleep(SECONDS)


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2], Path(sys.argv[3]))
