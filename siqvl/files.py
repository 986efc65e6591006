"""Files and folders that appear whole or not at all, and one hash for all that is in a folder."""

from __future__ import annotations

import hashlib
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Protocol

from siqvl.errors import UserError, one_line

PARTIAL = ".partial"
FLUSHED_BYTES = 8 * 2**20  # of a file that is being written: as much is brought to disk at a time,


def expanded(path: str | Path) -> Path:
    """Returns a path with `~` at its front filled in, where such a home is known."""
    return Path(os.path.expanduser(path))


def check_writable(folder: Path) -> None:
    """Tries whether a file can be written to a folder, or where the folder would be made.

    Raises:
        UserError: it cannot: the disk is full, or it is not allowed.
    """
    try:
        there = next(one for one in (folder, *folder.parents) if one.exists())
        with tempfile.NamedTemporaryFile(dir=there, prefix=".written-") as file:
            file.write(bytes(4096))
            file.flush()
            os.fsync(file.fileno())
    except (OSError, ValueError) as error:  # a name that no disk takes is a ValueError
        raise UserError(
            f"nothing can be written to {folder} ({one_line(error)}); free some space there, or "
            "set `output_dir` in the recipe to another folder"
        ) from None


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


class Digest(Protocol):
    """What `hashlib` and `xxhash` make."""

    def update(self, data: bytes, /) -> None: ...

    def hexdigest(self) -> str: ...


class DigestedFile:
    """A new file whose digest is known when it is written, without reading it again.

    What was written is brought to disk on the way, while more is: a later `sync` waits for little.

    Args:
        path: of the file.
        digest: an empty one, of the kind that is wanted.
    """

    def __init__(self, path: Path, digest: Digest) -> None:
        self.path = path
        self._file = open(path, "wb")  # noqa: SIM115 - `close` does
        self._digest = digest
        self._size = self._unflushed = 0
        self._thread = ThreadPoolExecutor(1)
        self._flushing: Future[None] | None = None

    def write(self, data: bytes) -> int:
        """Append bytes.

        Raises:
            OSError: these or earlier ones could not be written.
        """
        self._file.write(data)
        self._digest.update(data)
        size = len(data)
        self._size += size
        self._unflushed += size
        if self._unflushed >= FLUSHED_BYTES:
            self._flush_on()
        return size

    def _flush_on(self) -> None:
        """Bring to disk what was written until now, unless what was before is still on its way."""
        if self._flushing is not None:
            if not self._flushing.done():
                return
            self._flushing.result()  # a disk tells an error once: it must not be lost here
        self._unflushed = 0
        self._flushing = self._thread.submit(os.fdatasync, self._file.fileno())

    def tell(self) -> int:
        """Bytes written."""
        return self._size

    def flush(self) -> None:
        """Nothing: `close` does."""

    @property
    def closed(self) -> bool:
        return self._file.closed

    @property
    def digest(self) -> str:
        """Of all that was written, as hex."""
        return self._digest.hexdigest()

    def close(self) -> None:
        """End the file.

        Raises:
            OSError: a part of it could not be written.
        """
        self._thread.shutdown()
        self._file.close()
        if self._flushing is not None:
            self._flushing.result()


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
