"""A journal: what one process has to say about one run, on disk until the store has it.

    <spool>/<run id>/<name>.jsonl    a header, then an entry a line, in the order of logging
    <spool>/<run id>/<name>.at       how many of its bytes were delivered
    <spool>/<run id>/<name>.files/   files that entries name, hard links where that is possible
    <spool>/<run id>/<name>.refused  entries that the store will not have, each with its reason

The process that writes a journal holds a lock on it for as long as it lives, so another one can
tell whether it may deliver what is left.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import shutil
import socket
import threading
import time
import uuid
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

SUFFIX = ".jsonl"
LINKED = 1 << 24  # bytes


class Entry(NamedTuple):
    """One line of a journal."""

    end: int  # bytes of the journal up to and with this line
    content: dict[str, Any]

    @property
    def kind(self) -> str:
        return self.content["kind"]


class Journal:
    """One that this process writes, or one that is left over; see `create` and `left_over`."""

    def __init__(self, path: Path, file: BinaryIO) -> None:
        self.path = path
        self._file = file
        self._writing = threading.Lock()
        self.header: dict[str, Any] = self._read_header()
        self.online_id: str | None = None  # of a run that began offline, once it is known
        self._closing = False

    @classmethod
    def create(cls, spool: Path, *, uri: str, run_id: str) -> Journal:
        """A new journal of this process, locked.

        Args:
            uri: the store, with no password in it.
        """
        folder = spool / run_id
        folder.mkdir(parents=True, exist_ok=True)
        name = f"{time.time_ns()}-{socket.gethostname()}-{os.getpid()}-{uuid.uuid4().hex[:8]}"
        path = folder / f"{name}{SUFFIX}"
        file = path.open("ab")
        # Where a file system has no locks, nobody takes a journal for left over.
        with contextlib.suppress(OSError):
            fcntl.flock(file, fcntl.LOCK_EX)
        file.write(_line({"uri": uri, "run_id": run_id}))
        file.flush()
        return cls(path, file)

    @classmethod
    def left_over(cls, path: Path) -> Journal | None:
        """The journal of a process that is gone; None while another one has it.

        Raises:
            ValueError: it is damaged.
        """
        try:
            file = path.open("ab")
        except FileNotFoundError:  # delivered in the meantime
            return None
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            file.close()
            return None
        if not path.exists():
            file.close()
            return None
        try:
            _cut_torn_line(path)
            journal = cls(path, file)
            journal._end_run()
        except ValueError:
            file.close()
            raise
        return journal

    def append(self, kind: str, **content: Any) -> None:
        """Add an entry; it outlives this process once this returns."""
        with self._writing:
            self._file.write(_line({"kind": kind, **content}))
            self._file.flush()

    def keep(self, path: Path) -> str:
        """Put a file, or the content of a directory, beside the journal; its place there."""
        target = self._new_place()
        if path.is_dir():
            shutil.copytree(path, target, copy_function=_link_or_copy, dirs_exist_ok=True)
        else:
            _link_or_copy(str(path), str(target / path.name))
        return target.name

    def write(self, content: str, name: str) -> str:
        """Put a text beside the journal; its place there."""
        target = self._new_place()
        (target / name).write_text(content, encoding="utf-8")
        return target.name

    def pending(self, most: int = 1000) -> list[Entry]:
        """The next entries that were not delivered, at most so many.

        A closed journal has none: whoever waited for its last entry may close it while the thread
        that delivered that entry looks for more.
        """
        try:
            return list(islice(self._entries(), most))
        except FileNotFoundError:
            if self._closing:
                return []
            raise

    def delivered(self, entry: Entry) -> None:
        """Note that the store has everything up to this entry."""
        partial = self.path.with_suffix(".at.partial")
        partial.write_text(str(entry.end), encoding="ascii")
        partial.replace(self.path.with_suffix(".at"))
        if place := entry.content.get("place"):
            shutil.rmtree(self.files / place, ignore_errors=True)

    def refused(self, entry: Entry, reason: str) -> None:
        """Keep an entry that the store will not have, with its reason, and go on behind it."""
        with self.path.with_suffix(".refused").open("ab") as file:
            file.write(_line({**entry.content, "reason": reason}))
        self.delivered(Entry(entry.end, {}))  # its files stay

    @property
    def files(self) -> Path:
        return self.path.with_suffix(".files")

    @property
    def is_delivered(self) -> bool:
        return not self.pending(1)

    @property
    def position(self) -> int:
        """Bytes that were delivered, the header among them."""
        try:
            return int(self.path.with_suffix(".at").read_text(encoding="ascii"))
        except (FileNotFoundError, ValueError):
            return 0

    def close(self) -> None:
        """Let go of it; a journal with nothing left in it goes away, but for what was refused."""
        with self._writing:
            self._closing = True
            if self.is_delivered:
                self.path.unlink(missing_ok=True)
                self.path.with_suffix(".at").unlink(missing_ok=True)
                if not self.path.with_suffix(".refused").exists():
                    shutil.rmtree(self.files, ignore_errors=True)
                    if not any(self.path.parent.iterdir()):
                        self.path.parent.rmdir()
            self._file.close()

    def _new_place(self) -> Path:
        """An empty folder beside the journal."""
        target = self.files / uuid.uuid4().hex[:12]
        target.mkdir(parents=True)
        return target

    def _end_run(self) -> None:
        """Add the end, KILLED, to a run whose process began it and did not end it."""
        kinds = {entry.kind for entry in self._entries(0)}
        if "run" in kinds and "end" not in kinds:
            last = int(self.path.stat().st_mtime * 1000)
            self.append("end", status="KILLED", time=last)

    def _entries(self, start: int | None = None) -> Iterator[Entry]:
        # The position is read first: `close` removes it last, so one that is gone is never read
        # as 0 with the journal still there, which would send all of it again.
        end = self.position if start is None else start
        with self.path.open("rb") as file:
            file.seek(end)
            if end == 0:
                end = len(file.readline())
            for line in file:
                if not line.endswith(b"\n"):
                    return  # it is being written
                end += len(line)
                yield Entry(end, json.loads(line))

    def _read_header(self) -> dict[str, Any]:
        with self.path.open("rb") as file:
            return json.loads(file.readline())


def journals(spool: Path) -> list[Path]:
    """Every journal below a spool, the oldest first."""
    return sorted(spool.glob(f"*/*{SUFFIX}"), key=lambda path: path.name)


def _line(content: dict[str, Any]) -> bytes:
    return json.dumps(content, ensure_ascii=False).encode() + b"\n"


def _cut_torn_line(path: Path) -> None:
    """A process that is killed, or a full disk, may leave half a line at the end."""
    content = path.read_bytes()
    whole = content.rfind(b"\n") + 1
    if whole < len(content):
        os.truncate(path, whole)


def _link_or_copy(source: str, target: str) -> None:
    """Weights are written once, and linked; small files may change in place, and are copied."""
    try:
        if os.path.getsize(source) >= LINKED:
            os.link(source, target)
            return
    except OSError:  # another file system, or one without links
        pass
    shutil.copy2(source, target)
