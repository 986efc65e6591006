"""What a pod logged and the MLflow server does not have yet, kept when the pod ends.

A pod's disk goes with it, so its outbox (`siqvl/tracking/outbox.py`) is put beside the outputs
of the task, from where `siqvl track sync ADDRESS` delivers it.
"""

from __future__ import annotations

import logging
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from flytekit import FlyteContextManager

from siqvl.recipe import Recipe
from siqvl.tracking.outbox import FOLDER, Outbox, outbox_place, outboxes

logger = logging.getLogger(__name__)


def on_pods_disk() -> None:
    """Put the outbox of a pod where it can write, unless SIQVL_SPOOL names a place."""
    os.environ.setdefault(FOLDER, str(Path(tempfile.gettempdir()) / "siqvl" / "spool"))


@contextmanager
def kept(recipe: Recipe, *, on_cluster: bool) -> Iterator[None]:
    """Keep whatever is left in the outbox when the work inside ends, one way or another."""
    try:
        yield
    finally:
        if on_cluster:
            _put(outbox_place(recipe).folder)


def _put(folder: Path) -> None:
    access = FlyteContextManager.current_context().file_access
    address = f"{access.get_random_remote_directory().rstrip('/')}/spool"
    try:
        with tempfile.TemporaryDirectory(dir=folder if folder.is_dir() else None) as scratch:
            for path in outboxes(folder):
                outbox = Outbox(path)
                if outbox.streams():
                    outbox.copy_to(Path(scratch))
                outbox.close()
            if not outboxes(Path(scratch)):
                return
            access.put_data(scratch, address, is_multipart=True)
    except Exception as error:  # the work itself is done, or has an error of its own
        logger.warning("what MLflow does not have yet could not be kept: %s", error)
        return
    logger.warning(
        "MLflow does not have all that this task logged: `siqvl track sync %s` delivers it", address
    )
