"""Which part of a cache each training process computes, and when all of it can be seen.

Processes that see one folder divide what it lacks among themselves. Machines with a folder of their
own compute all of it, each its own. Both compute the same batches, so that what is kept is equal to
the last bit however machines are mounted.
"""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable, Mapping, Set
from contextlib import suppress
from pathlib import Path
from typing import TypeVar

from accelerate import PartialState
from accelerate.utils import gather_object

#: Seconds in which a machine comes to see what another has written: network volumes keep what a
#: folder lists for up to a minute (`acdirmax` of NFS).
SEEN_WITHIN = 90.0
_PAUSE = 1.0

Store = TypeVar("Store", bound=Mapping[str, object])


def own_shares(folder: Path, processes: PartialState) -> list[int]:
    """The shares of a cache that this process computes; there are as many as processes.

    Args:
        folder: of the cache, as every process names it. Each leaves a mark there and looks whose
            marks it finds. Where it may not write, it takes the folder for one that all see.
        processes: all of them; they wait for one another here.
    """
    rank, world = processes.process_index, processes.num_processes
    if world == 1:
        return [0]
    # a name that no machine has asked for yet: none remembers that it is not there
    mark = folder / f".process-{rank}-{uuid.uuid4().hex}"
    with suppress(OSError):
        folder.mkdir(parents=True, exist_ok=True)
        mark.touch()
    written = mark.exists()
    marks: list[str | None] = gather_object([mark.name if written else None])
    seen = [one for one, name in enumerate(marks) if name and (folder / name).exists()]
    processes.wait_for_everyone()
    mark.unlink(missing_ok=True)
    return shares_of(rank, seen if written else list(range(world)), world)


def shares_of(rank: int, beside: list[int], world: int) -> list[int]:
    """Those of `world` shares that fall to a process, of the ones that share its folder."""
    return [share for share in range(world) if beside[share % len(beside)] == rank]


def complete(
    store: Store, opened: Callable[[Store], Store], wanted: Set[str], *, seconds: float
) -> Store:
    """A store opened anew until it has all that is wanted, or until some seconds are over.

    Args:
        opened: opens it again, of which it is told what was there before.
    """
    end = time.monotonic() + seconds
    store = opened(store)
    while wanted - store.keys() and time.monotonic() < end:
        time.sleep(_PAUSE)
        store = opened(store)
    return store
