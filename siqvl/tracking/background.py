"""Delivery in the background, so that training never waits for the store.

What is logged goes to the outbox on disk. A thread for each store takes it there while the store
answers, waits longer and longer while it does not, and takes along what processes before this one
have left.
"""

from __future__ import annotations

import atexit
import logging
import math
import os
import sqlite3
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from siqvl.errors import UserError, one_line
from siqvl.tracking.delivery import Delivery, Held
from siqvl.tracking.outbox import Outbox, OutboxPlace, Stream
from siqvl.tracking.store import LEAST, least, masked, run_store, waited, without_password

logger = logging.getLogger(__name__)

GATHER = 0.5  # seconds in which points come together to one request
FIRST_WAIT, LONGEST_WAIT = 1.0, 30.0  # seconds between tries


class Sender:
    """The thread of one store, and what is known of that store."""

    def __init__(self, outbox: Outbox, uri: str, patience: float) -> None:
        self.outbox, self.uri, self.patience = outbox, uri, patience
        self.masked = without_password(uri)
        self.failures = 0  # tries in a row at which it was away
        self.begun = self.ended = 0  # rounds
        self.answers, self.allowance = 0, 0.0  # requests; seconds more that one may take
        #: Runs of which something is left: how often it was tried, and when to do it again.
        self.held: dict[str, tuple[int, float]] = {}
        self._next: float | None = None  # when to begin a round, by the monotonic clock
        self._hurry = self._stopping = False
        self.changed = threading.Condition()
        self._thread = threading.Thread(target=self._run, name="outbox", daemon=True)
        self._thread.start()

    def notify(self, *, now: bool = False) -> None:
        """There is something to deliver, or (`now`) somebody waits for that."""
        with self.changed:
            self._hurry |= now
            if now or self._next is None or (not self.failures and self._pause() > 0):
                self._next = time.monotonic()
                self.changed.notify_all()

    def stop(self, seconds: float) -> bool:
        """End the thread after its request; return whether it has ended within so many seconds."""
        with self.changed:
            self._stopping = True
            self.changed.notify_all()
        self._thread.join(seconds)
        return not self._thread.is_alive()

    def _run(self) -> None:
        while True:
            with self.changed:
                while not self._stopping and self._pause() > 0:
                    self.changed.wait(min(self._pause(), threading.TIMEOUT_MAX))
                self.changed.wait_for(lambda: self._hurry or self._stopping, GATHER)
                if self._stopping:
                    return
                self._next, hurry, self._hurry = None, self._hurry, False
                self.begun += 1
            try:
                self._round(hurry)
            except Exception as error:  # a thread that ends would deliver nothing any more
                if not self._stopping:
                    self._missed(error)
            with self.changed:
                self.ended = self.begun
                self.changed.notify_all()

    def _pause(self) -> float:
        return math.inf if self._next is None else self._next - time.monotonic()

    def _round(self, hurry: bool) -> None:
        """Deliver this process's own entries, and then what others have left."""
        held, self.held = self.held, {}
        now = -math.inf if hurry else time.monotonic()
        self._deliver(self.outbox.streams(self.outbox.writer), held, now)
        for writer in self.outbox.others():
            lock = self.outbox.take_over(writer)
            if lock is not None:
                try:
                    self._deliver(self.outbox.streams(writer), held, now)
                finally:
                    self.outbox.release(writer, lock)
        self.outbox.tidy()
        with self.changed:
            waited.pop(self.uri, None)
            was_away, self.failures = self.failures, 0
            if self.held and self._next is None:
                self._next = min(until for _, until in self.held.values())
        if was_away:
            logger.warning("MLflow store %s answers again", self.masked)

    def _deliver(
        self, streams: list[Stream], held: dict[str, tuple[int, float]], now: float
    ) -> None:
        """Deliver streams of this store, but for those of runs that are held for longer."""
        for stream in streams:
            if stream.uri != self.masked or self._stopping:
                continue
            tries, until = held.get(stream.run, (0, now))
            if until > now > -math.inf:
                self.held[stream.run] = (tries, until)
                continue
            try:
                Delivery(self.outbox, stream, run_store(self.uri, self.patience), self._heard).run()
            except Held as error:
                self.held[stream.run] = (tries + 1, time.monotonic() + _wait(tries))
                if not tries and not self._stopping:
                    reason = masked(str(error), self.uri)
                    logger.warning("run %s waits in the outbox: %s", stream.run, reason[:300])

    def _heard(self, allowance: float) -> None:
        if self._stopping:
            raise Held("the process ends")
        with self.changed:
            self.answers += 1
            self.allowance = allowance

    def _missed(self, error: Exception) -> None:
        with self.changed:
            self._next = time.monotonic() + _wait(self.failures)
            self.failures += 1
        if self.failures == 1:
            own = isinstance(error, sqlite3.Error)
            logger.warning(
                "%s does not answer (%s); work goes on, and what is logged waits in %s",
                f"outbox {self.outbox.path}" if own else f"MLflow store {self.masked}",
                masked(one_line(error), self.uri)[:200],
                self.outbox.path.parent,
            )


def _wait(tries: int) -> float:
    """Seconds between tries."""
    return min(FIRST_WAIT * 2.0 ** min(tries, 10), LONGEST_WAIT)


@dataclass
class _Wait:
    """Somebody who waits for a store; see `Background.flush`."""

    sender: Sender
    patience: float

    def __post_init__(self) -> None:
        self.is_spent = self.sender.failures > 0 and waited[self.sender.uri] >= self.patience
        self.begun, self.answers = self.sender.begun, self.sender.answers
        self.all = self.silent = 0.0  # seconds; since the store was heard
        self.most = max(
            self.patience - waited[self.sender.uri], least(self.sender.uri)
        )  # of silence
        if not self.is_spent:
            self.sender.notify(now=True)

    def tick(self, seconds: float) -> None:
        sender = self.sender
        self.all += seconds
        self.silent = self.silent + seconds if sender.answers == self.answers else 0.0
        self.answers = sender.answers
        if sender.failures:
            waited[sender.uri] += seconds

    def is_over(self, run: str) -> bool:
        """Whether patience is at its end, and a try that began after the call did not help."""
        sender = self.sender
        if self.silent >= self.most + sender.allowance:
            waited[sender.uri] = max(waited[sender.uri], self.patience)
            return True
        if self.is_spent or sender.ended <= self.begun:
            return self.is_spent
        is_away = sender.failures > 0 and waited[sender.uri] >= self.patience
        return is_away or (run in sender.held and self.all >= self.patience)


def _moment(waits: list[_Wait]) -> None:
    """Let a little time pass, or less where the first one's sender has news."""
    begin, changed = time.monotonic(), waits[0].sender.changed
    with changed:
        changed.wait(0.05)
    for wait in waits:
        wait.tick(time.monotonic() - begin)


class Background:
    """The outbox of this process in one folder, and the threads that deliver it."""

    def __init__(self, place: OutboxPlace) -> None:
        self.outbox = Outbox.of_process(place.folder)
        self._patience = place.patience
        self._senders: dict[str, Sender] = {}  # by address, without its password
        self._starting = threading.Lock()

    def add(self, uri: str, run: str, entries: list[tuple[str, Any]]) -> None:
        """Log entries: they are on disk when this returns, and on their way."""
        sender = self.sender(uri)
        self.outbox.add(sender.masked, run, entries)
        sender.notify()

    def sender(self, uri: str) -> Sender:
        """The thread of a store."""
        name = without_password(uri)
        with self._starting:
            if name not in self._senders:
                self._senders[name] = Sender(self.outbox, uri, self._patience)
            return self._senders[name]

    def flush(self, patience: float, run: str | None = None) -> bool:
        """Wait until all that this process logged (or what it logged of a run) is delivered.

        It gives up when a store has been away for `patience` seconds of waiting, those of earlier
        calls in the same outage counted in, or was not heard for so long; never while one answers,
        however long that takes. Whether it answers is told by a try that begins after the call.

        Returns:
            Whether nothing is left.
        """
        waits = {name: _Wait(one, patience) for name, one in list(self._senders.items())}
        while waiting := [
            one for one in self.outbox.streams(self.outbox.writer) if run in (None, one.run)
        ]:
            open_waits = [
                waits[one.uri]
                for one in waiting
                if one.uri in waits and not waits[one.uri].is_over(one.run)
            ]
            if not open_waits:
                return False
            _moment(list({id(one): one for one in open_waits}.values()))
        return True

    def catch_up(self, uri: str, patience: float) -> None:
        """Wait until a store has heard what others left, at most as `flush` does."""
        wait = _Wait(self.sender(uri), patience)
        while wait.sender.ended <= wait.begun and not wait.is_over(""):
            _moment([wait])

    def close(self) -> bool:
        """End the threads and let go of the outbox; whether the threads ended at once."""
        _BACKGROUNDS.pop((os.getpid(), self.outbox.path.parent), None)
        ended = [one.stop(LEAST) for one in list(self._senders.values())]
        if all(ended):  # else the lock stays with this process, and nobody delivers twice
            self.outbox.close()
        return all(ended)


_BACKGROUNDS: dict[tuple[int, Path], Background] = {}
_STARTING = threading.Lock()


def background(place: OutboxPlace) -> Background:
    """What delivers the outbox of a folder; at the exit of this process it delivers what it can.

    Raises:
        UserError: nothing can be written there.
    """
    key = (os.getpid(), place.folder.absolute())  # a forked process has no threads of its parent
    with _STARTING:
        if key not in _BACKGROUNDS:
            try:
                _BACKGROUNDS[key] = Background(place)
            except (OSError, sqlite3.Error) as error:
                raise UserError(
                    f"the outbox in {place.folder} cannot be written ({one_line(error)}): name "
                    "another folder in tracking.spool or SIQVL_SPOOL"
                ) from error
            atexit.register(_at_exit, key, place.patience)
        return _BACKGROUNDS[key]


def _at_exit(key: tuple[int, Path], patience: float) -> None:
    own = _BACKGROUNDS.get(key)
    if own is not None and key[0] == os.getpid():
        own.flush(patience)
        own.close()
