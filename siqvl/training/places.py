"""Where attempts at one stage keep their states: several may be alive at once, each has a place.

A place is a folder below that of the stage, locked while its attempt lives. A new attempt takes the
newest whole state of all: from a dead attempt's place it moves it, in one step, and then removes
the place; what a living one has is linked or copied, and left as it is. Where a volume has no
locks, a place counts as a dead attempt's when nothing has happened in it for a day. Directly in the
folder lie states of earlier versions, and those that were fetched from elsewhere.
"""

from __future__ import annotations

import logging
import shutil
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

from siqvl.errors import one_line
from siqvl.files import link_or_copy, sync
from siqvl.locks import NoLocks, lock
from siqvl.training.states import (
    clear_leftovers,
    discard,
    last_good_state,
    staged_state,
    state_step,
    states,
)

logger = logging.getLogger(__name__)

ATTEMPT = "attempt-"
LOCK = ".lock"
UNTOUCHED = 86_400.0  # seconds
TRIES = 5


def all_states(folder: Path) -> list[Path]:
    """The states of all attempts at a stage, the newest first; they may be torn."""
    found = [state for place in (folder, *_places(folder)) for state in states(place)]
    return sorted(found, key=state_step, reverse=True)


@contextmanager
def own_place(
    folder: Path, is_usable: Callable[[Path], bool]
) -> Iterator[tuple[Path, Path | None]]:
    """A new place, for as long as the block runs, and the state to go on from, which lies in it.

    Args:
        is_usable: whether a state may be gone on from.
    """
    with ExitStack() as held:
        place = _made(folder, held)
        state = None
        for _ in range(TRIES):
            with suppress(FileNotFoundError):  # another attempt has moved or removed it meanwhile
                state = _hand_over(folder, place, is_usable)
                break
        else:
            logger.warning("states in %s go before they are taken over; beginning anew", folder)
        if state is not None:
            logger.warning("continuing from step %d, of %s", state_step(state), state)
        yield place, state


def clear_places(folder: Path, own: Path | None = None) -> None:
    """Remove what dead attempts have left, and the folder itself where no other attempt lives.

    Args:
        own: a place that is removed in any case.
    """
    with ExitStack() as held:
        for place in _places(folder):
            if place == own or _is_dead(place, held):
                discard(place)
        for state in states(folder):
            discard(state)
        clear_leftovers(folder)
    with suppress(OSError):  # not empty
        folder.rmdir()


def _places(folder: Path) -> list[Path]:
    return sorted(folder.glob(f"{ATTEMPT}*"))


def _made(folder: Path, held: ExitStack) -> Path:
    while True:
        place = folder / f"{ATTEMPT}{uuid.uuid4().hex[:12]}"
        with suppress(FileNotFoundError):  # whoever ended just now took it for a dead one's
            place.mkdir(parents=True)
            try:
                file = lock(place / LOCK)
            except NoLocks:
                return place
            if file is not None:
                held.enter_context(file)
                return place


def _is_dead(place: Path, held: ExitStack) -> bool:
    """Whether the attempt of a place is gone; nobody else finds so until `held` is closed."""
    try:
        file = lock(place / LOCK)
    except NoLocks:
        return time.time() - place.stat().st_mtime > UNTOUCHED
    except FileNotFoundError:  # just removed
        return False
    if file is not None:
        held.enter_context(file)
    return file is not None


def _hand_over(folder: Path, own: Path, is_usable: Callable[[Path], bool]) -> Path | None:
    """Bring the newest whole state to an attempt's own place, and remove what the dead ones have.

    Raises:
        FileNotFoundError: another attempt has been quicker.
    """
    with ExitStack() as held:
        others = [place for place in _places(folder) if place != own]
        dead = [folder, *(place for place in others if _is_dead(place, held))]
        found = None
        for state in all_states(folder):
            if state.parent == own or not is_usable(state):
                continue
            try:
                _bring(state, own, is_dead=state.parent in dead)
            except FileNotFoundError:
                raise
            except OSError as error:
                logger.warning("%s cannot be taken over: %s", state, one_line(error))
            if found := last_good_state(own):
                break
        for note in (note for place in dead for note in place.glob("non-finite-*.json")):
            with suppress(OSError):
                note.replace(own / note.name)
        for left in (*dead[1:], *states(folder)):
            discard(left)
        clear_leftovers(folder)
    return found


def _bring(state: Path, own: Path, *, is_dead: bool) -> None:
    """Move a dead attempt's state to a place, whole; of a living one's make another there."""
    if is_dead:
        state.rename(own / state.name)
    else:
        staged = staged_state(own, state_step(state))
        try:
            shutil.copytree(state, staged, copy_function=link_or_copy)
            staged.rename(own / state.name)
        except shutil.Error:  # of one file or several
            state.stat()
            raise
        finally:
            shutil.rmtree(staged.parent, ignore_errors=True)
    sync(own)
