"""A heartbeat in every run that is open here, and an end for runs that have none any more.

A process that is killed, or loses its machine, ends no run. So each writes into its runs that it
lives, and whoever opens the experiment later ends as KILLED those that have said nothing for long.

A beat has the time of the *store's* clock, which is one for all, where those of machines may differ
by hours; and the time of its own machine, by which a run begins and ends. It does not wait in the
outbox, where a late one would lie. So a run whose store was away may be ended by mistake: its own
process finds that when it writes the next beat, and opens the run again.
"""

from __future__ import annotations

import contextlib
import logging
import os
import queue
import threading
import time
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from typing import NamedTuple

from siqvl.tracking.background import background
from siqvl.tracking.offline import TAG, is_offline
from siqvl.tracking.outbox import OutboxPlace
from siqvl.tracking.store import HEARTBEAT, REPLACED, beat, client, store_time

logger = logging.getLogger(__name__)

EVERY = 60.0  # seconds between beats
LOST_AFTER = 600.0  # seconds without one


class Open(NamedTuple):
    """A run that this process works on."""

    uri: str
    run_id: str
    outbox: OutboxPlace
    experiment: str
    name: str = ""
    own: bool = False  # this process has begun it, and is to end it


_open: dict[str, Open] = {}
_lock = threading.Lock()
_begun: queue.SimpleQueue[Open] = queue.SimpleQueue()
_thread: threading.Thread | None = None
os.register_at_fork(after_in_child=_open.clear)


def begin(run: Open) -> None:
    """Let the run's heart beat, until `end`."""
    global _thread
    with _lock:
        _open[run.run_id] = run
        if _thread is None or not _thread.is_alive():  # that of a forked process is not
            _thread = threading.Thread(target=_run, name="heartbeat", daemon=True)
            _thread.start()
    _begun.put(run)


@contextmanager
def ending(run_id: str) -> Iterator[None]:
    """Log the end of a run in here: no beat, and no reopening, comes after it."""
    with _lock:
        yield
        _open.pop(run_id, None)


@contextmanager
def shared(*runs: Open) -> Iterator[None]:
    """Beat also for runs that other processes may have begun, while this one adds to them."""
    added = [run for run in runs if run.run_id not in _open]
    for run in added:
        begin(run)
    try:
        yield
    finally:
        for run in added:
            _open.pop(run.run_id, None)


def own_runs() -> list[Open]:
    """The runs that this process has begun and not ended, the last one first."""
    return [run for run in reversed(list(_open.values())) if run.own]


def _run() -> None:
    due = time.monotonic() + EVERY
    while True:
        try:
            runs = [_begun.get(timeout=max(0.0, due - time.monotonic()))]
        except queue.Empty:
            due, runs = time.monotonic() + EVERY, list(_open.values())
        for run in runs:
            with contextlib.suppress(Exception):  # a store that is away: delivery says it
                _beat(run)
        for run in {(run.uri, run.experiment): run for run in runs}.values():
            with contextlib.suppress(Exception):
                _look(run)


def _beat(run: Open) -> None:
    outbox = background(run.outbox)
    run_id = outbox.outbox.online(run.run_id) if is_offline(run.run_id) else run.run_id
    if run_id is None:  # the store does not have it yet
        return
    store = client(run.uri)
    store.set_tag(run_id, HEARTBEAT, beat(run.uri))
    found = store.get_run(run_id)
    if found.info.status == "KILLED" and REPLACED not in found.data.tags:
        with _lock:
            if run.run_id in _open:  # so its end is logged after this
                outbox.add(run.uri, run.run_id, [("reopen", {})])


def _look(run: Open) -> None:
    with _lock:  # the end of a run may wait here for a store that was away
        ours = {one.run for one in background(run.outbox).outbox.streams()} | _open.keys()
    end_lost(run.uri, run.experiment, ours)


def end_lost(uri: str, experiment: str, ours: Collection[str] = ()) -> None:
    """End as KILLED the runs of an experiment that have had no beat for long, as of their last.

    Args:
        ours: ids of runs to leave alone. Runs that never had a beat are of others, and are left.
    """
    store, now = client(uri), store_time(uri)
    found = store.get_experiment_by_name(experiment)
    number = [found.experiment_id] if found else []
    for run in store.search_runs(number, "attributes.status = 'RUNNING'") if number else []:
        seen, _, last = run.data.tags.get(HEARTBEAT, "inf").partition(" ")
        silent = now - float(seen)
        if silent > LOST_AFTER and not {run.info.run_id, run.data.tags.get(TAG)} & set(ours):
            store.set_terminated(run.info.run_id, "KILLED", int(last))
            said = "run `%s` has had no heartbeat for %d minutes: it ends KILLED"
            logger.warning(said, run.info.run_name, silent // 60)
