"""Pipelines on this machine that are killed and started again, each attempt a process of its own.

A server imports everything once and forks for each attempt, so that one costs no imports. A kill
comes by the clock, or right before one of the changes that the process makes to files, which are
the moments between two of which nothing can be torn.
"""

from __future__ import annotations

import contextlib
import gc
import importlib
import multiprocessing
import os
import select
import signal
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from loopback.forked import end_with

from siqvl.checkpoint import CARD, HISTORY
from siqvl.data.content import content_of
from siqvl.files import file_sha256
from siqvl.recipe import Recipe
from siqvl.tracking.environment import environment_text
from siqvl.tracking.runs import client
from tests.quick import children

SECONDS = 300
#: What a pipeline imports, for the server to do it before it forks for the next.
IMPORTED = "imported"
#: Audit events of Python by which files come, go or change their names.
CHANGES = frozenset({"os.rename", "os.remove", "os.rmdir", "os.mkdir", "os.link", "shutil.rmtree"})


@dataclass(frozen=True)
class Kill:
    """When an attempt is killed: after so many seconds, or before so many changes; how."""

    seconds: float | None = None
    change: int | None = None
    by: signal.Signals = signal.SIGKILL


@dataclass(frozen=True)
class Ended:
    """How an attempt ended."""

    code: int
    seconds: float
    changes: int


@dataclass(frozen=True)
class Server:
    """What forks for attempts."""

    connection: Connection

    def attempt(self, recipe: Recipe, folder: Path, kill: Kill | None = None) -> Ended:
        """Run the pipeline of a recipe in a folder, where what it prints is kept in `printed`."""
        folder.mkdir(exist_ok=True)
        self.connection.send((recipe.model_dump(mode="json"), folder, kill or Kill()))
        return self.connection.recv()


@contextlib.contextmanager
def server() -> Iterator[Server]:
    """A server, until the block ends."""
    from multiprocessing import Pipe

    own, other = Pipe()
    process = children.Process(target=_serve, args=(other,))
    process.start()
    other.close()
    try:
        yield Server(own)
    finally:
        own.close()
        process.join(SECONDS)


def _serve(connection: Connection) -> None:
    import workflows.full_pipeline  # noqa: F401

    with contextlib.suppress(EOFError):
        while True:
            content, folder, kill = connection.recv()
            connection.send(_run(content, folder, kill))
            if (folder / IMPORTED).exists():
                for name in (folder / IMPORTED).read_text().split():
                    with contextlib.suppress(Exception):
                        importlib.import_module(name)
                (folder / IMPORTED).unlink()
                environment_text()
                gc.freeze()  # nor does a collection look at it


def _run(content: dict[str, Any], folder: Path, kill: Kill) -> Ended:
    changes = os.memfd_create("changes")
    begin = time.monotonic()
    pid = os.fork()
    if not pid:
        end_with(lambda: _pipeline(content, folder, kill, changes))
    ended = os.pidfd_open(pid)
    if not select.select([ended], [], [], SECONDS if kill.seconds is None else kill.seconds)[0]:
        os.kill(pid, kill.by if kill.seconds is not None else signal.SIGABRT)
        if not select.select([ended], [], [], SECONDS)[0]:
            os.kill(pid, signal.SIGABRT)  # it hangs
    code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    seconds, counted = time.monotonic() - begin, os.fstat(changes).st_size
    os.close(ended)
    os.close(changes)
    return Ended(code, seconds, counted)


def _pipeline(content: dict[str, Any], folder: Path, kill: Kill, changes: int) -> None:
    with (folder / "printed").open("ab") as log:
        os.dup2(log.fileno(), 1)
        os.dup2(log.fileno(), 2)
    print(f"--- {kill}", flush=True)
    multiprocessing.process._parent_process = None  # as of a program that a user starts
    os.chdir(folder)

    def count(event: str, arguments: tuple[Any, ...]) -> None:
        if event in CHANGES:
            os.write(changes, b".")
            if os.fstat(changes).st_size == kill.change:
                os.kill(os.getpid(), kill.by)

    sys.addaudithook(count)
    from workflows.full_pipeline import full_pipeline

    full_pipeline(recipe=Recipe.model_validate(content))
    (folder / IMPORTED).write_text("\n".join(sys.modules))


@dataclass(frozen=True)
class Outcome:
    """What a pipeline came to, all of which must be the same however often it was killed."""

    folders: int
    left: list[str]  # by whatever was killed
    files: dict[str, str]  # of checkpoints and scores, by their path
    data: dict[str, str]  # prepared
    runs: list[tuple[str, str]]  # (name, status) of those that were not killed
    versions: list[tuple[str, str]]  # (stage, checkpoint) of those registered
    aliases: dict[str, str]  # alias -> checkpoint


def outcome(recipe: Recipe) -> Outcome:
    """Look at all that a recipe's pipelines have left on disk and in the store."""
    places = [path.parent for path in Path(recipe.output_dir, recipe.name).glob("*/pipeline.json")]
    place = max(places)
    paths = [*place.glob("checkpoints/[!.]*/*"), *place.glob("evaluation/[!.]*/[sp]*.*")]
    store = client(recipe.tracking.uri or "")
    experiment = store.get_experiment_by_name(recipe.tracking.experiment)
    assert experiment is not None
    runs = store.search_runs([experiment.experiment_id])
    versions = store.search_model_versions(f"name = '{recipe.tracking.model_name}'")
    checkpoints = {int(one.version): one.tags["siqvl.checkpoint"] for one in versions}
    model = store.get_registered_model(recipe.tracking.model_name)
    return Outcome(
        folders=len(places),
        left=[
            str(path.relative_to(place))
            for path in place.rglob("*")
            if path.is_dir() and (path.name.startswith(".") or ".tmp-" in path.name)
        ],
        files={
            str(path.relative_to(place)): file_sha256(path)
            for path in paths
            if path.name not in (CARD, HISTORY)
        },
        data={
            path.name: content_of(path)
            for path in (place / "data").glob("[!.]*")
            if ".shard-" not in path.name  # those hold pieces
        },
        runs=sorted(
            (
                run.data.tags.get("siqvl.stage", "") + run.info.run_name.partition(" 2")[0],
                run.info.status,
            )
            for run in runs
            if run.info.status != "KILLED"
        ),
        versions=sorted(
            (one.tags["siqvl.stage"], one.tags["siqvl.checkpoint"]) for one in versions
        ),
        aliases={name: checkpoints[int(number)] for name, number in model.aliases.items()},
    )
