"""Show pages of siqvl's in the Flyte console, beside the task that made them.

The page of a stage in training is a file that training writes every so many steps. On a cluster a
thread of the task publishes the deck whenever there is a new one, so that a blob store that is slow
or away holds nothing up; here, the file is what there is to look at.
"""

from __future__ import annotations

import logging
import os
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import copy_context
from pathlib import Path

from flytekit import Deck
from flytekit.loggers import logger as flytekit_logger

from siqvl.files import expanded
from siqvl.page.render import render
from siqvl.recipe import Recipe
from tasks.contracts import PipelineRun, on_cluster, workspace

SECONDS = 1.0  # between looks at the file
PATIENCE = 5.0  # seconds that the end of training waits for a page that is on its way
FAILED = "Failed to write flyte deck html"  # as flytekit says it, at each page


def show(title: str, page: Path) -> None:
    """Add an HTML page to the task's deck, in a frame of its own: its styles stay inside."""
    Deck(title, _framed(title, page))


def live_page(recipe: Recipe, run: PipelineRun, name: str) -> Path:
    """Where a stage in training has its page: the same place in each of its processes.

    In a pod it is on the pod's own disk, that of the first process, if there are several machines.
    """
    if on_cluster():
        place = expanded(tempfile.gettempdir()) / "siqvl" / recipe.name / run.name
    else:
        place = workspace(recipe, run)
    return place / "training" / f"{name}.html"


@contextmanager
def live(title: str, page: Path) -> Iterator[None]:
    """Have the task's deck show a page that changes, until it ends.

    A process that torch elastic started is no task; the one that started it is.
    """
    if "TORCHELASTIC_RUN_ID" in os.environ:
        yield
        return
    _ChangingPage(title, page)
    if not on_cluster():
        yield
        return
    once = _Once()
    flytekit_logger.addFilter(once)
    ended = threading.Event()
    publish = copy_context().run  # flytekit finds the task by its context
    thread = threading.Thread(target=publish, args=(_publish, page, ended), daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join(PATIENCE)
        flytekit_logger.removeFilter(once)


class _ChangingPage(Deck):
    """A deck that is what the file holds when it is written."""

    def __init__(self, title: str, page: Path) -> None:
        super().__init__(title)
        self._page = page

    @property
    def html(self) -> str:
        return _framed(self.name, self._page) if self._page.exists() else ""


class _Once(logging.Filter):
    """Lets what flytekit says of a deck that was not published through once."""

    said = False

    def filter(self, record: logging.LogRecord) -> bool:
        if not record.getMessage().startswith(FAILED):
            return True
        self.said, first = True, not self.said
        return first


def _publish(page: Path, ended: threading.Event) -> None:
    """Publish each page that is found, the newest alone where several came in the meantime."""
    published = None
    last = False
    while not last:
        last = ended.wait(SECONDS)
        written = page.stat().st_mtime_ns if page.exists() else None
        if written != published:
            Deck.publish()
            published = written


def _framed(title: str, page: Path) -> str:
    content = page.read_text(encoding="utf-8")
    return render("page/frame.html.jinja", title=title, page=content)
