"""A stage that loses its pod goes on where it was: its states are kept in Flyte's checkpoint store.

The library writes states, whole or not at all, into a folder beside the checkpoint to be
(`siqvl/training/states.py`). While a stage trains, a thread puts the newest of them into the store
as one file, which is replaced as a whole: nothing stale lies beside it, and training does not wait.
The next attempt begins by fetching it. States name what they depend on and carry checksums, so one
of other data, or a damaged one, is never continued from.
"""

from __future__ import annotations

import contextvars
import logging
import shutil
import tarfile
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from flytekit import current_context
from flytekit.core.checkpointer import Checkpoint
from flytekit.exceptions.user import FlyteDataNotFoundException

from siqvl.errors import one_line
from siqvl.training.places import ATTEMPT, all_states
from siqvl.training.resuming import all_state_folders
from siqvl.training.states import damage, state_step
from tasks.contracts import on_cluster

logger = logging.getLogger(__name__)

ARCHIVE = "state.tar"
LOOKS_EVERY = 1.0  # seconds
TRIES = 3


@contextmanager
def states_kept(output: Path) -> Iterator[int]:
    """Fetch what the attempt before has kept; keep what is written inside the block.

    The last state is kept also where the block ends in an error soon after it was written.

    Args:
        output: of the stage, see `siqvl.training.stage.train_stage`. Outside of a pod nothing is
            done: the states are still where they were.

    Yields:
        How many more states than the trainer's own lie on the disk of `output` meanwhile.
    """
    store = _store()
    if store is None:
        yield 0
        return
    output.parent.mkdir(parents=True, exist_ok=True)
    # on the pod's own disk: what one that is killed leaves in a shared folder nobody would clear
    with tempfile.TemporaryDirectory(prefix=".states-") as scratch:
        _restore(store, output, Path(scratch))
        keeper = _Keeper(store, output, Path(scratch))
        keeper.start()
        try:
            yield 1
        finally:
            keeper.stop()


def _store() -> Checkpoint | None:
    if not on_cluster():  # flytekit has a store there too, a new folder below /tmp every time
        return None
    try:
        return current_context().checkpoint
    except NotImplementedError:  # flytekit's word for: the platform has none
        return None


def _restore(store: Checkpoint, output: Path, scratch: Path) -> None:
    """Unpack the kept state, if there is one, and keep it for the attempt after this one too."""
    fetched = _fetch(store, scratch)
    if fetched is None:
        return
    with tempfile.TemporaryDirectory(dir=output.parent, prefix=".states-") as unpacked:
        if not _unpack(fetched, output, Path(unpacked)):
            return
    # Flyte hands on the store of the attempt just before, so this one must have it as well.
    _save(store, fetched)
    fetched.unlink()


def _unpack(fetched: Path, output: Path, unpacked: Path) -> bool:
    """Bring the state of an archive to where states of `output` are, if it is whole."""
    try:
        with tarfile.open(fetched) as archive:
            archive.extractall(unpacked, filter="data")
    except (tarfile.TarError, OSError, EOFError) as error:
        logger.warning("the state that was kept is damaged: %s", one_line(error))
        return False
    found = _all_states(unpacked / output.name)
    reason = damage(found[0]) if found else "there is none in it"
    if reason is not None:
        logger.warning("the state that was kept is damaged: %s", reason)
        return False
    place = output.parent / _name(found[0])
    place.parent.mkdir(exist_ok=True)
    if not place.exists():  # on a shared folder it still may
        found[0].rename(place)
    return True


def _fetch(store: Checkpoint, scratch: Path) -> Path | None:
    """The archive of the attempt before. It may have been killed before it kept anything."""
    if not store.prev_exists():
        return None
    folder = scratch / "before"
    for attempt in range(1, TRIES + 1):
        folder.mkdir(exist_ok=True)
        try:
            store.restore(folder)
            break
        except (FlyteDataNotFoundException, FileNotFoundError):
            return None
        except Exception as error:  # a store that is away: worth another try, not the whole run
            logger.warning("try %d to fetch the kept state: %s", attempt, one_line(error))
            shutil.rmtree(folder, ignore_errors=True)
            time.sleep(attempt)
    found = folder / ARCHIVE
    return found if found.is_file() else None


def _save(store: Checkpoint, archive: Path) -> bool:
    try:
        store.save(archive)
    except Exception as error:  # training goes on; the next state is tried again
        logger.warning("a state could not be kept: %s", one_line(error))
        return False
    return True


class _Keeper(threading.Thread):
    """Puts the newest state into the store, as often as there is a new one."""

    def __init__(self, store: Checkpoint, output: Path, scratch: Path) -> None:
        super().__init__(name="states-kept", daemon=True)
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
        archive = self._scratch / ARCHIVE
        try:
            with tarfile.open(archive, "w") as packed:
                packed.add(state, arcname=_name(state))
        except OSError as error:  # newer states have come meanwhile, and this one is gone
            logger.info("state %s was not kept: %s", state.name, one_line(error))
            return False
        return _save(self._store, archive)


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
