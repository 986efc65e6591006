"""The outbox: what was logged and the MLflow store does not have yet, in one sqlite file.

    <folder>/outbox.db        a row an entry until it is delivered; one that the store refuses stays
    <folder>/files/           files that entries name, hard links where that is possible
    <folder>/<writer>.lock    held by a process as long as it may deliver what it wrote

Every process has entries of its own, and takes over those of a process whose lock is free.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import shutil
import socket
import sqlite3
import threading
import time
import uuid
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple, TypeVar

from siqvl.errors import one_line
from siqvl.files import expanded
from siqvl.locks import try_lock
from siqvl.recipe import Recipe
from siqvl.tracking.volume import alone_in, is_local

logger = logging.getLogger(__name__)

NAME, FILES = "outbox.db", "files"
#: Where a machine keeps outboxes, for recipes that do not say it; pods have it on their own disk.
FOLDER = "SIQVL_SPOOL"
LINKED = 1 << 24  # bytes
BUSY = 30.0  # seconds that one write waits for those of other processes
#: The file is sound, and what was tried may go well later.
PASSING = ("SQLITE_BUSY", "SQLITE_FULL", "SQLITE_READONLY", "SQLITE_CANTOPEN", "SQLITE_PERM")
SCHEMA = """
CREATE TABLE IF NOT EXISTS stream (
    id INTEGER PRIMARY KEY, writer TEXT NOT NULL, uri TEXT NOT NULL,
    run TEXT NOT NULL, begun INTEGER NOT NULL DEFAULT 0, UNIQUE (writer, uri, run));
CREATE TABLE IF NOT EXISTS entry (
    id INTEGER PRIMARY KEY, stream INTEGER NOT NULL, at INTEGER NOT NULL,
    kind TEXT NOT NULL, content TEXT NOT NULL, tries INTEGER NOT NULL DEFAULT 0, refused TEXT);
CREATE INDEX IF NOT EXISTS waiting ON entry (stream, id) WHERE refused IS NULL;
CREATE TABLE IF NOT EXISTS online (run TEXT PRIMARY KEY, id TEXT NOT NULL);
"""
THESE = "id IN (SELECT value FROM json_each(?))"
WAITS = "EXISTS (SELECT 1 FROM entry WHERE stream = stream.id AND refused IS NULL)"

T = TypeVar("T")
_encoded = json.JSONEncoder(ensure_ascii=False).encode
_FIRST: dict[Path, int] = {}  # outboxes that were opened, and by which process


@dataclass(frozen=True)
class OutboxPlace:
    """The folder of an outbox, and how long a task waits for a store that is away."""

    folder: Path
    patience: float  # seconds


def outbox_place(recipe: Recipe) -> OutboxPlace:
    """The folder that the recipe names, else SIQVL_SPOOL, else `spool` beside its results."""
    named = recipe.tracking.spool or os.environ.get(FOLDER)
    folder = expanded(named) if named else expanded(recipe.output_dir) / "spool"
    return OutboxPlace(folder.absolute(), recipe.tracking.patience_seconds)


class Stream(NamedTuple):
    """What one process logs of one run."""

    id: int
    writer: str
    uri: str  # of the store, with no password in it
    run: str


class Entry(NamedTuple):
    """A point, a parameter, a tag, or whatever else goes to a run by itself."""

    id: int
    kind: str
    content: Any
    tries: int  # at which the store failed


class Outbox:
    """An outbox file, made if it is not there; safe to use from several threads.

    A file that is damaged is set aside with one warning, and a new one takes its place.

    Raises:
        OSError, sqlite3.OperationalError: it cannot be written.
    """

    def __init__(self, path: Path, writer: str = "", lock: BinaryIO | None = None) -> None:
        self.path, self.writer, self._lock = path, writer, lock
        self._using = threading.RLock()
        self._streams: dict[tuple[str, str, str], int] = {}
        self._open()

    @classmethod
    def of_process(cls, folder: Path) -> Outbox:
        """The outbox of a folder, for this process to write to."""
        folder.mkdir(parents=True, exist_ok=True)
        name = f"{time.time_ns()}-{socket.gethostname()}-{os.getpid()}-{uuid.uuid4().hex[:6]}"
        lock, path = try_lock(folder / f"{name}.lock"), folder / NAME
        # A file that is shared needs locks; and sqlite's do not know that a process was forked.
        if lock is None or _FIRST.setdefault(path, os.getpid()) != os.getpid():
            path = folder / f"{name}.{NAME}"
        return cls(path, name, lock)

    def add(
        self, uri: str, run: str, entries: Iterable[tuple[str, Any]], writer: str | None = None
    ) -> None:
        """Log entries, each a kind and what JSON can hold; they outlive this process on return."""
        now = time.time_ns() // 1_000_000
        rows = [(kind, _encoded(content)) for kind, content in entries]
        key = (self.writer if writer is None else writer, uri, run)

        def insert(database: sqlite3.Connection) -> None:
            if key not in self._streams:
                new = "INSERT OR IGNORE INTO stream (writer, uri, run) VALUES (?, ?, ?)"
                database.execute(new, key)
                find = "SELECT id FROM stream WHERE writer = ? AND uri = ? AND run = ?"
                (self._streams[key],) = database.execute(find, key).fetchone()
            stream = self._streams[key]
            # One statement, which is a transaction: at each, Python lets other threads go first.
            for start in range(0, len(rows), 1000):
                part = rows[start : start + 1000]
                many = ", ".join(["(?, ?, ?, ?)"] * len(part))
                values = [value for row in part for value in (stream, now, *row)]
                one = f"INSERT INTO entry (stream, at, kind, content) VALUES {many}"
                database.execute(one, values)
            bounds = [kind for kind, _ in rows if kind in ("run", "end")]
            if bounds:
                begun = "UPDATE stream SET begun = ? WHERE id = ?"
                database.execute(begun, (bounds[-1] == "run", stream))

        self._do(insert)

    def __len__(self) -> int:
        return int(self._all("SELECT COUNT(*) FROM entry")[0][0])

    def keep(self, path: Path) -> str:
        """Put a file, or the content of a directory, beside the outbox; its place there."""
        target = self.path.parent / FILES / uuid.uuid4().hex
        if path.is_dir():
            shutil.copytree(path, target, copy_function=_link_or_copy)
        else:
            target.mkdir(parents=True)
            _link_or_copy(str(path), str(target / path.name))
        return target.name

    def streams(self, writer: str | None = None) -> list[Stream]:
        """Those in which entries wait (of one process), in the order in which they began."""
        rows = self._all(
            "SELECT id, writer, uri, run FROM stream"
            f" WHERE (?1 IS NULL OR writer = ?1) AND {WAITS} ORDER BY id",
            (writer,),
        )
        return [Stream(*row) for row in rows]

    def others(self) -> list[str]:
        """The other processes of which entries wait, or runs that they alone could end."""
        rows = self._all(
            f"SELECT writer FROM stream WHERE writer != ? AND (begun OR {WAITS})"
            " GROUP BY writer ORDER BY MIN(id)",
            (self.writer,),
        )
        return [writer for (writer,) in rows]

    def waiting(self, stream: Stream, after: int = 0, most: int = 1000) -> list[Entry]:
        """The next entries of a stream that are neither delivered nor refused."""
        rows = self._all(
            "SELECT id, kind, content, tries FROM entry"
            " WHERE stream = ? AND refused IS NULL AND id > ? ORDER BY id LIMIT ?",
            (stream.id, after, most),
        )
        return [Entry(number, kind, json.loads(text), tries) for number, kind, text, tries in rows]

    def delivered(self, entries: Sequence[Entry]) -> None:
        """Let go of entries that the store has, and of their files."""
        self._all(f"DELETE FROM entry WHERE {THESE}", (_ids(entries),))
        for entry in entries:
            if entry.kind == "artifact":
                shutil.rmtree(self.place(entry), ignore_errors=True)

    def refused(self, entries: Sequence[Entry], reason: str) -> bool:
        """Keep entries that the store will not have, with the reason; nothing sends them again.

        Returns:
            Whether the reason is a new one for what their stream holds.
        """
        known = self._all(
            "SELECT 1 FROM entry WHERE refused = ? AND stream ="
            " (SELECT stream FROM entry WHERE id = ?) LIMIT 1",
            (reason, entries[0].id),
        )
        self._all(f"UPDATE entry SET refused = ? WHERE {THESE}", (reason, _ids(entries)))
        return not known

    def failed(self, entry: Entry) -> None:
        """Count a try at which the store failed on an entry."""
        self._all("UPDATE entry SET tries = tries + 1 WHERE id = ?", (entry.id,))

    def refusals(self, stream: Stream | None = None) -> list[tuple[str, str, Any, str]]:
        """What was refused: the run, the kind of entry, its content and the reason."""
        rows = self._all(
            "SELECT run, kind, content, refused FROM entry JOIN stream ON stream.id = stream"
            " WHERE refused IS NOT NULL AND (?1 IS NULL OR stream = ?1) ORDER BY entry.id",
            (stream and stream.id,),
        )
        return [(run, kind, json.loads(text), reason) for run, kind, text, reason in rows]

    def online(self, run: str, made: str | None = None) -> str | None:
        """The store's id of a run that began without it, once that was given."""
        if made:
            self._all("INSERT OR REPLACE INTO online VALUES (?, ?)", (run, made))
        found = self._all("SELECT id FROM online WHERE run = ?", (run,))
        return found[0][0] if found else None

    def take_over(self, writer: str) -> BinaryIO | None:
        """The lock of a process that is gone, for `release`; None while it lives.

        A run that it began without the store and did not end is ended, as KILLED.
        """
        lock = try_lock(self._lock_of(writer))
        if lock is None:
            return None
        begun = self._all(
            "SELECT uri, run, MAX(at) FROM stream LEFT JOIN entry ON stream = stream.id"
            " WHERE writer = ? AND begun GROUP BY stream.id",
            (writer,),
        )
        for uri, run, last in begun:
            end = {"status": "KILLED", "time": last or time.time_ns() // 1_000_000}
            self.add(uri, run, [("end", end)], writer)
        return lock

    def release(self, writer: str, lock: BinaryIO) -> None:
        """Give back a lock that `take_over` gave; its file goes once nothing waits."""
        if not self.streams(writer):
            self._lock_of(writer).unlink(missing_ok=True)
        lock.close()

    def copy_to(self, folder: Path) -> None:
        """Copy it as it is now, whoever writes meanwhile, with the files that entries name."""
        folder.mkdir(parents=True, exist_ok=True)
        copy = sqlite3.connect(folder / self.path.name)
        with self._using:
            self._database.backup(copy)
        copy.execute("PRAGMA journal_mode = DELETE")  # all of it in one file
        copy.close()
        files = self.path.parent / FILES
        if files.is_dir():
            target = folder / FILES
            shutil.copytree(files, target, copy_function=_link_or_copy, dirs_exist_ok=True)

    def tidy(self) -> None:
        """Move the write-ahead log into the file; whoever logs meanwhile does not wait for it."""
        if self._is_ahead:
            other = sqlite3.connect(self.path)
            with contextlib.suppress(sqlite3.Error):
                other.execute("PRAGMA wal_checkpoint(PASSIVE)")
            other.close()

    def close(self) -> None:
        """Let go of it; what waits is for whoever comes next."""
        self._database.close()
        if self._lock:
            self._lock_of(self.writer).unlink(missing_ok=True)
            self._lock.close()

    def place(self, entry: Entry) -> Path:
        """The folder of an entry's files."""
        return self.path.parent / FILES / entry.content["place"]

    def _lock_of(self, writer: str) -> Path:
        return self.path.with_name(f"{writer}.lock")

    def _open(self) -> None:
        self._streams.clear()
        with alone_in(self.path.parent):
            try:
                self._database = self._connected()
            except sqlite3.DatabaseError as error:
                if _passes(error):
                    raise
                aside = self.path.with_name(f"damaged-{time.time_ns()}-{NAME}")
                for end in ("", "-wal", "-shm", "-journal"):
                    file = Path(f"{self.path}{end}")
                    if file.exists():
                        file.rename(f"{aside}{end}")
                logger.warning(
                    "outbox %s is damaged (%s): it is set aside as %s, and what waited there was "
                    "not delivered",
                    *(self.path, one_line(error), aside.name),
                )
                self._database = self._connected()

    def _connected(self) -> sqlite3.Connection:
        has_locks = self._lock or not self.writer
        name = f"{self.path.absolute().as_uri()}?nolock={int(not has_locks)}"
        options: dict[str, Any] = {"timeout": BUSY, "check_same_thread": False}
        database = sqlite3.connect(name, uri=True, isolation_level=None, **options)
        try:
            (said,) = database.execute("PRAGMA quick_check(1)").fetchone()
            if said != "ok":
                raise sqlite3.DatabaseError(said)
            self._is_ahead = bool(has_locks) and is_local(self.path.parent)
            mode = "WAL" if self._is_ahead else "TRUNCATE"
            database.execute(f"PRAGMA journal_mode = {mode}")
            database.execute("PRAGMA synchronous = NORMAL")
            database.execute("PRAGMA wal_autocheckpoint = 0")  # see `tidy`
            database.executescript(SCHEMA)
        except sqlite3.Error:
            database.close()
            raise
        return database

    def _do(self, act: Callable[[sqlite3.Connection], T]) -> T:
        """Do something, with another file if this one turns out to be damaged."""
        with self._using:
            try:
                return act(self._database)
            except sqlite3.DatabaseError as error:
                if _passes(error) or isinstance(error, sqlite3.ProgrammingError):
                    raise
                self._database.close()
                self._open()
                return act(self._database)

    def _all(self, query: str, values: Sequence[Any] = ()) -> list[tuple[Any, ...]]:
        return self._do(lambda database: database.execute(query, values).fetchall())


def _ids(entries: Sequence[Entry]) -> str:
    return json.dumps([entry.id for entry in entries])


def outboxes(folder: Path) -> list[Path]:
    """Every outbox file of a folder."""
    return sorted(path for path in folder.glob(f"*{NAME}") if not path.name.startswith("damaged-"))


def _passes(error: sqlite3.DatabaseError) -> bool:
    return getattr(error, "sqlite_errorname", "").startswith(PASSING)


def _link_or_copy(source: str, target: str) -> None:
    """Weights are written once, and linked; small files may change in place, and are copied."""
    try:
        if os.path.getsize(source) >= LINKED:
            os.link(source, target)
            return
    except OSError:  # another file system, or one without links
        pass
    shutil.copy2(source, target)
