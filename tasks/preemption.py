"""A stage that loses its pod goes on where it was: its states are kept in Flyte's checkpoint store.

The library writes states, whole or not at all, into a folder beside the checkpoint to be
(`siqvl/training/states.py`). While a stage trains, a thread puts the newest of them into the store
as one file, which is replaced as a whole: nothing stale lies beside it, and training does not wait.
The next attempt begins by fetching it. States name what they depend on and carry checksums, so one
of other data, or a damaged one, is never continued from.

Flyte starts the next attempt as soon as a pod is deleted, while this one is in its grace and saves
its last state. So an attempt that is told to end leaves a mark in its store, and another when it
has; the next one waits from the one to the other. One that ends before it has taken over a state
leaves the address of the store before, so that whoever comes after it finds it there.
"""

from __future__ import annotations

import contextvars
import json
import logging
import shutil
import tarfile
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from flytekit import current_context
from flytekit.core.checkpointer import SyncCheckpoint
from flytekit.core.context_manager import FlyteContextManager
from flytekit.exceptions.user import FlyteDataNotFoundException

from siqvl.errors import one_line
from siqvl.recipe import Recipe
from siqvl.training.loop.stop_request import Stopped, listening, standing
from siqvl.training.places import ATTEMPT, all_states
from siqvl.training.resuming import all_state_folders
from siqvl.training.states import damage, state_step
from tasks.contracts import on_cluster
from tasks.pod_template import KUBERNETES_GRACE

logger = logging.getLogger(__name__)

ARCHIVE = "state.tar"
#: Marks of an attempt in its store: it was told to end, it has ended, where the one before kept.
LEAVING, LEFT, BEFORE = "leaving.json", "left.json", "before.json"
LOOKS_EVERY = 1.0  # seconds
TRIES = 3
MOST_BEFORE = 20  # attempts, none of which came to keep anything
SLACK = 5.0  # seconds that a pod may outlive its grace, until the kubelet has seen to it


def grace(recipe: Recipe) -> float | None:
    """Seconds that a training has when it is told to end; None where nobody is in a hurry."""
    return float(recipe.compute.training.grace_seconds) if on_cluster() else None


@contextmanager
def states_kept(output: Path, seconds: float | None = None) -> Iterator[int]:
    """Fetch what the attempt before has kept; keep what is written inside the block.

    The last state is kept also where the block ends in an error soon after it was written.

    Args:
        output: of the stage, see `siqvl.training.stage.train_stage`. Outside of a pod nothing is
            done: the states are still where they were.
        seconds: that this attempt has when it is told to end; None: those of Kubernetes.

    Yields:
        How many more states than the trainer's own lie on the disk of `output` meanwhile.
    """
    store = _store()
    standing.elsewhere = store is not None
    if store is None:
        yield 0
        return
    output.parent.mkdir(parents=True, exist_ok=True)
    # on the pod's own disk: what one that is killed leaves in a shared folder nobody would clear
    with tempfile.TemporaryDirectory(prefix=".states-") as scratch:
        _restore(store, output, Path(scratch))
        keeper = _Keeper(store, output, Path(scratch), seconds or KUBERNETES_GRACE)
        keeper.start()
        leave = contextvars.copy_context().run  # flytekit finds its file access by the context
        with listening(lambda: leave(keeper.leave)):
            try:
                yield 1
            except Stopped:  # also where nobody was at a step, but has just come from the last
                keeper.leave()
                raise
            finally:
                keeper.stop()


def _store() -> SyncCheckpoint | None:
    if not on_cluster():  # flytekit has a store there too, a new folder below /tmp every time
        return None
    try:
        store = current_context().checkpoint
    except NotImplementedError:  # flytekit's word for: the platform has none
        return None
    assert isinstance(store, SyncCheckpoint)
    return store


def _restore(store: SyncCheckpoint, output: Path, scratch: Path) -> None:
    """Unpack the kept state, if there is one, and keep it for the attempt after this one too."""
    fetched = _fetch(store, scratch)
    if fetched is None:
        return
    with tempfile.TemporaryDirectory(dir=output.parent, prefix=".states-") as unpacked:
        step = _unpack(fetched, output, Path(unpacked))
    if step is None:
        return
    # Flyte hands on the store of the attempt just before, so this one must have it as well.
    begin = time.monotonic()
    if _save(store, fetched):
        standing.stored(step, time.monotonic() - begin)
    fetched.unlink()


def _unpack(fetched: Path, output: Path, unpacked: Path) -> int | None:
    """Bring the state of an archive to where states of `output` are; its step, if it is whole."""
    try:
        with tarfile.open(fetched) as archive:
            archive.extractall(unpacked, filter="data")
    except (tarfile.TarError, OSError, EOFError) as error:
        logger.warning("the state that was kept is damaged: %s", one_line(error))
        return None
    found = _all_states(unpacked / output.name)
    reason = damage(found[0]) if found else "there is none in it"
    if reason is not None:
        logger.warning("the state that was kept is damaged: %s", reason)
        return None
    place = output.parent / _name(found[0])
    place.parent.mkdir(exist_ok=True)
    if not place.exists():  # on a shared folder it still may
        found[0].rename(place)
    return state_step(place)


def _fetch(store: SyncCheckpoint, scratch: Path) -> Path | None:
    """The archive of the attempt before, or of one before that, if those between kept nothing."""
    for number in range(MOST_BEFORE):
        source = store._checkpoint_src
        if source is None:
            return None
        if not number:
            _mark(store, scratch, BEFORE, checkpoint=source)
        _wait_for_its_end(store)
        found = _downloaded(store, scratch / f"before-{number}")
        if found is None or (found / ARCHIVE).is_file():
            return found and found / ARCHIVE
        source = _marked(found / BEFORE).get("checkpoint")
        store = type(store)(store._checkpoint_dest, source)
    return None


def _downloaded(store: SyncCheckpoint, folder: Path) -> Path | None:
    """What an attempt has left; None where it was killed before it kept anything."""
    for attempt in range(1, TRIES + 1):
        folder.mkdir(exist_ok=True)
        try:
            store.restore(folder)
            return folder
        except (FlyteDataNotFoundException, FileNotFoundError):
            return None
        except Exception as error:  # a store that is away: worth another try, not the whole run
            logger.warning("try %d to fetch the kept state: %s", attempt, one_line(error))
            shutil.rmtree(folder, ignore_errors=True)
            time.sleep(attempt)
    return None


def _wait_for_its_end(store: SyncCheckpoint) -> None:
    """Wait while the attempt before, which was told to end, may still save a state."""
    access, place = FlyteContextManager.current_context().file_access, store._checkpoint_src

    def is_there(name: str) -> bool:
        with suppress(Exception):  # a store that is away: fetching will say so
            return bool(access.exists(f"{place}/{name}"))
        return False

    end = 0.0
    while is_there(LEAVING) and not is_there(LEFT):
        if not end:
            with tempfile.TemporaryDirectory() as scratch:
                copy = Path(scratch, LEAVING)
                access.get_data(f"{place}/{LEAVING}", str(copy))
                seconds = float(_marked(copy).get("seconds", 0.0))
            end = time.monotonic() + seconds + SLACK
            logger.warning("the attempt before is saving its state; waiting up to %.0f s", seconds)
        elif time.monotonic() > end:
            logger.warning("the attempt before has not said that it has ended")
            return
        time.sleep(LOOKS_EVERY / 4)


def _mark(store: SyncCheckpoint, scratch: Path, name: str, **content: Any) -> None:
    """Leave a mark in this attempt's store."""
    path = scratch / name
    path.write_text(json.dumps(content) + "\n", encoding="utf-8")
    _save(store, path)


def _marked(path: Path) -> dict[str, Any]:
    """What a mark says; nothing where there is none, or a damaged one."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return content if isinstance(content, dict) else {}


def _save(store: SyncCheckpoint, archive: Path) -> bool:
    try:
        store.save(archive)
    except Exception as error:  # training goes on; the next state is tried again
        logger.warning("a state could not be kept: %s", one_line(error))
        return False
    return True


class _Keeper(threading.Thread):
    """Puts the newest state into the store, as often as there is a new one."""

    def __init__(self, store: SyncCheckpoint, output: Path, scratch: Path, seconds: float) -> None:
        super().__init__(name="states-kept", daemon=True)
        self._seconds, self._leaving = seconds, threading.Lock()
        self._store, self._output, self._scratch = store, output, scratch
        self._ended = threading.Event()
        self._before = {_name(state) for state in _all_states(output)}
        # flytekit finds its file access in the context of the thread that asks
        self._context = contextvars.copy_context()

    def run(self) -> None:
        self._context.run(self._watch)

    def stop(self) -> None:
        self._ended.set()
        self.join()
        if self._leaving.locked():
            _mark(self._store, self._scratch, LEFT, step=standing.kept)

    def leave(self) -> None:
        """Tell the next attempt to wait for what this one may still save; once is enough."""
        if self._leaving.acquire(blocking=False):
            _mark(self._store, self._scratch, LEAVING, seconds=self._seconds)

    def _watch(self) -> None:
        kept, ended = None, False
        while not ended:
            ended = self._ended.wait(LOOKS_EVERY)
            there = _all_states(self._output)
            written = [state for state in there if _name(state) not in self._before]
            newest = max(written, key=state_step, default=None)
            if newest is not None and newest != kept and self._keep(newest):
                kept = newest

    def _keep(self, state: Path) -> bool:
        archive, begin = self._scratch / ARCHIVE, time.monotonic()
        try:
            with tarfile.open(archive, "w") as packed:
                packed.add(state, arcname=_name(state))
        except OSError as error:  # newer states have come meanwhile, and this one is gone
            logger.info("state %s was not kept: %s", state.name, one_line(error))
            return False
        if not _save(self._store, archive):
            return False
        standing.stored(state_step(state), time.monotonic() - begin)
        return True


def _all_states(output: Path) -> list[Path]:
    """All states of a stage on this machine, whatever they depend on."""
    try:
        return [state for folder in all_state_folders(output) for state in all_states(folder)]
    except OSError:  # the stage has just ended, and removes its folder
        return []


def _name(state: Path) -> Path:
    """A state's step and what it depends on, whichever attempt saved it."""
    folders = (place for place in state.parents if not place.name.startswith(ATTEMPT))
    return Path(next(folders).name, state.name)
