"""What a pod logged and the MLflow server does not have yet, kept when the pod ends.

A pod's disk goes with it, so its spool (`siqvl/tracking/spool.py`) is put beside the outputs of the
task, from where `siqvl track sync ADDRESS` delivers it.
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
from siqvl.tracking.journal import journals
from siqvl.tracking.spool import FOLDER, spool_of

logger = logging.getLogger(__name__)


def on_pods_disk() -> None:
    """Put the spool of a pod where it can write, unless SIQVL_SPOOL names a place."""
    os.environ.setdefault(FOLDER, str(Path(tempfile.gettempdir()) / "siqvl" / "spool"))


@contextmanager
def kept(recipe: Recipe, *, on_cluster: bool) -> Iterator[None]:
    """Keep whatever is left in the spool when the work inside ends, one way or another."""
    try:
        yield
    finally:
        folder = spool_of(recipe).folder
        if on_cluster and journals(folder):
            _put(folder)


def _put(folder: Path) -> None:
    access = FlyteContextManager.current_context().file_access
    address = f"{access.get_random_remote_directory().rstrip('/')}/spool"
    try:
        access.put_data(str(folder), address, is_multipart=True)
    except Exception as error:  # the work itself is done, or has an error of its own
        logger.warning("what MLflow does not have yet could not be kept: %s", error)
        return
    logger.warning(
        "MLflow does not have all that this task logged: `siqvl track sync %s` delivers it", address
    )
