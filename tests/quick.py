"""What makes tests quick without making them other tests: made once, imported once.

Three things cost more than what most tests look at. A process that trains imports torch and
transformers (eight seconds of a core), a new MLflow store runs all migrations (one and a half), and
a pipeline of four stages is trained. Here each of them happens once: children of a test are forks
of a server that has imported and done nothing else, a new store begins as a copy of an empty one,
and a folder that one of pytest's processes makes is read by all of them.
"""

from __future__ import annotations

import multiprocessing
import os
import shutil
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from multiprocessing import forkserver
from pathlib import Path

import pytest
from filelock import FileLock

#: What a training process, and one that prepares data, imports.
PRELOADED = (
    "torch.distributed.launcher.api",
    "transformers.integrations.integration_utils",
    "transformers.models.auto.modeling_auto",
    "transformers.models.auto.processing_auto",
    "transformers.models.qwen2.modeling_qwen2",
    "transformers.models.siglip.image_processing_siglip",
    "transformers.models.siglip.modeling_siglip",
    "mlflow",
    "siqvl.data.preparation.prepare",
    "siqvl.training.stage_process",
    "siqvl.training.loop.resumable",
    "siqvl.training.preference.dpo",
    "siqvl.training.sft",
    "tests.last_delivery",
)

#: Forks of this one would share the servers and stores of the tests before.
children = multiprocessing.get_context("forkserver")
children.set_forkserver_preload(list(PRELOADED))


def made_once(factory: pytest.TempPathFactory, name: str, make: Callable[[Path], object]) -> Path:
    """A folder that the first of pytest's processes to ask for it makes; only to be read."""
    base = factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        base = base.parent
    folder, done = base / name, base / f"{name}.done"
    with FileLock(base / f"{name}.lock"):
        if not done.exists():
            shutil.rmtree(folder, ignore_errors=True)
            folder.mkdir()
            make(folder)
            done.touch()
    return folder


@contextmanager
def preloaded_children() -> Iterator[None]:
    """Processes that SiQ-VL spawns are forked from a process that has imported what they need.

    They leave out what `atexit` runs at the end of a spawned one, but for the last delivery to
    MLflow.
    """
    from torch.distributed.elastic.multiprocessing.api import MultiprocessContext

    from siqvl.data import processes

    begin = MultiprocessContext.__init__

    def forked(self, *arguments, start_method: str, **options) -> None:
        begin(self, *arguments, start_method="forkserver", **options)

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(MultiprocessContext, "__init__", forked)
        patched.setattr(processes, "get_context", lambda method: children)
        yield


def stop_children() -> None:
    """End the server of forks, so that no process outlives the tests."""
    forkserver._forkserver._stop()


@contextmanager
def copied_stores(factory: pytest.TempPathFactory) -> Iterator[None]:
    """New MLflow stores of sqlite are copies of one that is empty."""
    from mlflow.store.db import utils

    initialize = utils._initialize_tables

    def make(folder: Path) -> None:
        engine = utils.create_sqlalchemy_engine_with_retry(f"sqlite:///{folder}/empty.db")
        initialize(engine)
        engine.dispose()

    def copy(engine) -> None:
        if engine.dialect.name != "sqlite":
            initialize(engine)
            return
        empty = made_once(factory, "empty-store", make) / "empty.db"
        with closing(sqlite3.connect(empty)) as source, engine.connect() as target:
            source.backup(target.connection.driver_connection)

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(utils, "_initialize_tables", copy)
        from mlflow.store.model_registry import sqlalchemy_store

        patched.setattr(sqlalchemy_store, "_initialize_tables", copy)
        yield
