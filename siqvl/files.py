"""Files and folders that appear whole or not at all, and one hash for all that is in a folder."""

from __future__ import annotations

import hashlib
import os
import shutil
import tempfile
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

PARTIAL = ".partial"
FLUSHED_BYTES = 8 * 2**20  # of a file that is being written: as much is brought to disk at a time,
# and may wait in memory
HELD_BYTES = 2**20  # that are written at a time


@contextmanager
def atomic_file(path: Path, owner: object = "") -> Iterator[Path]:
    """Yields the place of a hidden file that becomes `path`, synced, when the block succeeds.

    Args:
        owner: part of the hidden file's name, for writers of one `path` side by side, or so that
            what a dead one left can be told.
    """
    partial = path.with_name(f".{owner}.{path.name}{PARTIAL}")
    try:
        yield partial
        sync(partial)
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)


@contextmanager
def atomic_folder(out: Path) -> Iterator[Path]:
    """Yields a temporary folder that takes the place of `out` when the block succeeds."""
    out.parent.mkdir(parents=True, exist_ok=True)
    folder = Path(tempfile.mkdtemp(prefix=f"{out.name}.tmp-", dir=out.parent))
    try:
        yield folder
        for file in sorted(folder.rglob("*")):
            sync(file)
        sync(folder)
        folder.chmod(0o755)  # mkdtemp makes it private
        old = out.parent / f".{out.name}.old-{folder.name.rpartition('-')[2]}"
        if out.exists():
            out.rename(old)
        folder.rename(out)
        sync(out.parent)
        shutil.rmtree(old, ignore_errors=True)
    except BaseException:
        shutil.rmtree(folder, ignore_errors=True)
        raise


def sync(path: Path) -> None:
    """Waits until a file or folder is on disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def file_sha256(path: Path) -> str:
    """Returns the sha256 of a file's content, as hex."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


class DigestedFile:
    """A new file whose sha256 is known when it is written, without reading it again.

    A thread writes, digests, and brings to disk what there is of it on the way: who calls `write`
    goes on meanwhile, and a later `sync` has little to wait for.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._file = open(path, "wb", buffering=0)  # noqa: SIM115 - `close` does
        self._digest = hashlib.sha256()
        self._size = self._unflushed = self._held_size = 0
        self._held: list[bytes] = []  # not yet handed to the thread: small ones would wake it often
        self._thread = ThreadPoolExecutor(1)
        self._waiting: deque[tuple[int, Future[None]]] = deque()

    def write(self, data: bytes) -> int:
        """Append bytes; waits while many are still to be written.

        Raises:
            OSError: earlier ones could not be written.
        """
        data = bytes(data)  # a view may be of memory that is used again; bytes are not copied
        self._size += len(data)
        self._held.append(data)
        self._held_size += len(data)
        if self._held_size >= HELD_BYTES:
            self._hand_over()
        return len(data)

    def _hand_over(self) -> None:
        appended = self._thread.submit(self._append, self._held)
        self._waiting.append((self._held_size, appended))
        self._held, self._held_size = [], 0
        while sum(size for size, _ in self._waiting) > FLUSHED_BYTES:
            self._waiting.popleft()[1].result()

    def _append(self, parts: list[bytes]) -> None:
        data = b"".join(parts)
        view = memoryview(data)
        while view:  # an unbuffered file may take a part only
            view = view[self._file.write(view) :]
        self._digest.update(data)
        self._unflushed += len(data)
        if self._unflushed >= FLUSHED_BYTES:
            os.fdatasync(self._file.fileno())
            self._unflushed = 0

    def tell(self) -> int:
        """Bytes written."""
        return self._size

    def flush(self) -> None:
        """Nothing: `close` waits for all of it."""

    @property
    def closed(self) -> bool:
        return self._file.closed

    @property
    def sha256(self) -> str:
        """Of a file that is closed, as hex."""
        return self._digest.hexdigest()

    def close(self) -> None:
        """End the file.

        Raises:
            OSError: a part of it could not be written.
        """
        if not self.closed:
            self._hand_over()
        self._thread.shutdown()
        self._file.close()
        while self._waiting:
            self._waiting.popleft()[1].result()


def folder_hash(folder: Path, counts: Callable[[Path], bool] = lambda path: True) -> str:
    """Returns the sha256 over relative names and bytes of a folder's files, in order of names.

    Args:
        counts: whether a file does.
    """
    digest = hashlib.sha256()
    for path in sorted(folder.rglob("*")):
        if path.is_file() and "__pycache__" not in path.parts and counts(path):
            digest.update(str(path.relative_to(folder)).encode() + b"\0")
            digest.update(bytes.fromhex(file_sha256(path)))
    return digest.hexdigest()
