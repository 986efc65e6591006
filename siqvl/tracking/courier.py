"""The courier: a thread that takes what is logged to the store, so that training never waits.

What is logged goes to journals on disk (`siqvl/tracking/journal.py`). The courier delivers them
while the store answers, waits longer and longer while it does not, and takes along what processes
before this one have left.
"""

from __future__ import annotations

import atexit
import logging
import os
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path

from siqvl.errors import one_line
from siqvl.tracking.delivery import NotYet, deliver
from siqvl.tracking.journal import Journal, journals
from siqvl.tracking.store import client, without_password

logger = logging.getLogger(__name__)

GATHER = 0.5  # seconds in which points come together to one request
FIRST_WAIT, LONGEST_WAIT = 1.0, 30.0  # seconds between tries while the store is away


@dataclass(frozen=True)
class Spool:
    """Where journals lie, and how long the end of a task waits for a store that is away."""

    folder: Path
    patience: float  # seconds


@dataclass
class _Away:
    """A store that does not answer."""

    tries: int = 0
    next: float = 0.0  # when to try again, by the monotonic clock
    waited: float = 0.0  # seconds that ends of tasks have waited for it
    asked: bool = False  # somebody waits for the outcome of a try that has yet to begin
    trying: bool = False  # that try is under way

    def ask(self) -> None:
        self.next, self.asked = 0.0, True

    def begin(self) -> None:
        self.asked, self.trying = False, self.asked

    def missed(self) -> None:
        wait = 0.0 if self.asked else min(FIRST_WAIT * 2**self.tries, LONGEST_WAIT)
        self.next = time.monotonic() + wait
        self.tries += 1
        self.trying = False


@dataclass
class Courier:
    """Journals of this process, and the thread that delivers them; see `courier`."""

    folder: Path
    _journals: dict[tuple[str, str], Journal] = field(default_factory=dict)  # by store and run
    _left: list[Journal] = field(default_factory=list)
    _ended: set[tuple[str, str]] = field(default_factory=set)  # to be closed once delivered
    _wanted: set[str] = field(default_factory=set)  # stores that something waits for
    _away: dict[str, _Away] = field(default_factory=dict)
    _hurry: int = 0  # how many wait for the end of it
    _changed: threading.Condition = field(default_factory=threading.Condition)
    _thread: threading.Thread | None = None
    _damaged: set[Path] = field(default_factory=set)  # of other processes, told of once

    def append(self, uri: str, run_id: str, kind: str, **content: object) -> None:
        """Log an entry: it is on disk when this returns, and on its way."""
        self.journal(uri, run_id).append(kind, **content)
        self.notify(uri)

    def journal(self, uri: str, run_id: str) -> Journal:
        """The journal of a run, begun with its first entry."""
        with self._changed:
            key = (uri, run_id)
            if key not in self._journals:
                header = without_password(uri)
                self._journals[key] = Journal.create(self.folder, uri=header, run_id=run_id)
            return self._journals[key]

    def notify(self, uri: str) -> None:
        """There is something to deliver."""
        with self._changed:
            self._wanted.add(uri)
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="tracking", daemon=True)
                self._thread.start()
            self._changed.notify_all()

    def flush(self, patience: float, run_id: str | None = None) -> bool:
        """Wait until all that this process logged (or what it logged of a run) is delivered.

        It gives up when a store has been away for `patience` seconds of waiting, those of earlier
        calls counted in, and never while one answers, however long that takes. Whether it answers
        is told by a try that begins after the call, so one that is slow is not taken for away.

        Returns:
            Whether nothing is left.
        """
        with self._changed:
            self._hurry += 1
            for one in self._away.values():
                if one.waited < patience:
                    one.ask()
            self._changed.notify_all()
        try:
            while waiting := self._waiting(run_id):
                begin = time.monotonic()
                with self._changed:
                    away = [self._away[uri] for uri in waiting if uri in self._away]
                    if len(away) == len(waiting) and all(
                        one.waited >= patience and not (one.asked or one.trying) for one in away
                    ):
                        return False
                    self._changed.wait(0.1)
                    for one in away:
                        one.waited += time.monotonic() - begin
            return True
        finally:
            with self._changed:
                self._hurry -= 1

    def try_again(self, uri: str | None = None) -> None:
        """Try a store (or all) at once: it answered elsewhere, or this process is about to end."""
        with self._changed:
            for of, away in self._away.items():
                if uri in (None, of):
                    away.ask()
            self._changed.notify_all()

    def close(self, uri: str, run_id: str) -> None:
        """Let a run's journal go; what is logged to it later gets another one."""
        with self._changed:
            journal = self._journals.pop((uri, run_id), None)
        if journal:
            journal.close()

    def close_later(self, uri: str, run_id: str) -> None:
        """Let a run's journal go once it is delivered."""
        with self._changed:
            self._ended.add((uri, run_id))

    def close_all(self) -> None:
        """Let go of all journals, those of other processes among them."""
        for uri, run_id in list(self._journals):
            self.close(uri, run_id)
        while self._left:
            self._left.pop().close()

    def _waiting(self, run_id: str | None) -> set[str]:
        """The stores that entries of this process wait for."""
        with self._changed:
            own = list(self._journals.items())
        return {
            uri for (uri, of), journal in own if run_id in (None, of) and not journal.is_delivered
        }

    def _run(self) -> None:
        while True:
            with self._changed:
                while not self._ready():
                    self._changed.wait(self._pause())
                self._changed.wait_for(lambda: self._hurry, GATHER)
                ready = self._ready()
                self._wanted -= ready
                for uri in ready & self._away.keys():
                    self._away[uri].begin()
                own = list(self._journals.items())
            try:
                self._gather_left({journal.path for _, journal in own})
            except OSError as error:  # what others left is not worth what this process logs
                logger.warning("%s cannot be looked through: %s", self.folder, one_line(error))
            for uri in ready:
                mine = [journal for (of, _), journal in own if of == uri]
                left = [one for one in self._left if one.header["uri"] == without_password(uri)]
                self._deliver(uri, mine, left)
            with self._changed:
                self._changed.notify_all()

    def _ready(self) -> set[str]:
        """Stores to go to now."""
        now = time.monotonic()
        return {u for u in self._wanted if u not in self._away or self._away[u].next <= now}

    def _pause(self) -> float | None:
        """Seconds until a store is to be tried again; None while nothing waits."""
        times = [self._away[uri].next for uri in self._wanted if uri in self._away]
        return max(min(times) - time.monotonic(), 0.0) if times else None

    def _gather_left(self, own: set[Path]) -> None:
        """Take what processes have left that are gone."""
        known = own | {journal.path for journal in self._left} | self._damaged
        for path in journals(self.folder):
            try:
                if path not in known and (journal := Journal.left_over(path)):
                    self._left.append(journal)
            except ValueError as error:
                self._damaged.add(path)
                logger.warning("journal %s is damaged: %s", path, one_line(error))

    def _deliver(self, uri: str, mine: list[Journal], left: list[Journal]) -> None:
        """What others left comes first: it is older, and a run ends with what is this process's."""
        try:
            later = [journal for journal in left if not self._took(uri, journal)]
            again = [journal for journal in mine if not self._took(uri, journal)]
            again += [journal for journal in later if not self._took(uri, journal)]
        except Exception as error:
            self._missed(uri, error)
            return
        with self._changed:
            away = self._away.pop(uri, None)
            ended = [] if again else [key for key in self._ended if key[0] == uri]
            self._ended.difference_update(ended)
            if again:
                self._wanted.add(uri)
                self._away[uri] = _Away(next=time.monotonic() + FIRST_WAIT)
        for key in ended:
            self.close(*key)
        if away and away.tries:
            logger.warning("MLflow store %s answers again", without_password(uri))

    def _took(self, uri: str, journal: Journal) -> bool:
        """Whether it is delivered; if not, another process has yet to make the run."""
        try:
            deliver(journal, client(uri))
        except NotYet:
            return False
        if journal in self._left:
            self._left.remove(journal)
            journal.close()
        return True

    def _missed(self, uri: str, error: Exception) -> None:
        with self._changed:
            self._wanted.add(uri)
            away = self._away.setdefault(uri, _Away())
            away.missed()
        if away.tries == 1:
            logger.warning(
                "MLflow store %s does not answer (%s); work goes on, and what is logged waits in "
                "%s",
                without_password(uri),
                one_line(error)[:200],
                self.folder,
            )


_COURIERS: dict[tuple[int, Path], Courier] = {}
_STARTING = threading.Lock()


def courier(spool: Spool) -> Courier:
    """This process's courier for a spool; at exit it delivers what it can."""
    key = (os.getpid(), spool.folder.absolute())  # a forked process has no threads of its parent
    with _STARTING:
        if key not in _COURIERS:
            _COURIERS[key] = Courier(spool.folder.absolute())
            atexit.register(_at_exit, key, spool.patience)
        return _COURIERS[key]


def _at_exit(key: tuple[int, Path], patience: float) -> None:
    if key[0] != os.getpid():
        return
    own = _COURIERS.pop(key)
    own.try_again()
    own.flush(patience)
    own.close_all()
