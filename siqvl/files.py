"""Files and folders that appear whole or not at all, and the hashes of what is in them."""

from __future__ import annotations

import ctypes
import errno
import hashlib
import os
import shutil
import tempfile
import time
import uuid
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager, suppress
from functools import lru_cache
from pathlib import Path
from typing import Protocol

from siqvl.errors import UserError, one_line

PARTIAL = ".partial"
HASHING_THREADS = 4
TRIES = 100  # to take a name that other processes take, too
#: A file this young, in nanoseconds, may change again without another time of change: clocks of
#: filesystems tick every 4 to 10 milliseconds.
YOUNG = 50_000_000
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


def check_not_read(made: Path, read: str | Path, option: str) -> None:
    """Refuses to write a file over the one that is read.

    Args:
        read: a path, or what is none.
        option: that names `made`.

    Raises:
        UserError: they are one file.
    """
    if made.resolve() == Path(read).resolve():
        raise UserError(f"{made} is what is read, and would be lost: give another `{option}`")


@contextmanager
def atomic_file(path: Path, owner: str = "") -> Iterator[Path]:
    """Yields the place of a hidden file that becomes `path`, synced, when the block succeeds.

    Args:
        owner: part of the hidden file's name, so that what a dead one left can be told; without
            it, writers of one `path` side by side have names of their own.
    """
    partial = path.with_name(f".{owner or uuid.uuid4().hex}.{path.name}{PARTIAL}")
    try:
        yield partial
        sync(partial)
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)


@contextmanager
def atomic_folder(out: Path) -> Iterator[Path]:
    """Yields a temporary folder that takes the place of `out` when the block succeeds.

    What was there before stays until then, in one step where the system can exchange folders. Where
    it cannot, a process that is killed between two renames leaves it aside, and the next use for
    `out` puts it back first.
    """
    out.parent.mkdir(parents=True, exist_ok=True)
    old = out.with_name(f".{out.name}.old")
    if old.exists() and not out.exists():
        with suppress(OSError):  # another process does the same, or has just put a new one there
            old.rename(out)
    folder = out.with_name(f"{out.name}.tmp-{uuid.uuid4().hex[:8]}")
    folder.mkdir()
    try:
        yield folder
        follow_umask(folder)
        for file in sorted(folder.rglob("*")):
            sync(file)
        sync(folder)
        _publish(folder, out, old)
        sync(out.parent)
    finally:  # of what failed, or of what was there before
        shutil.rmtree(folder, ignore_errors=True)


def _publish(folder: Path, out: Path, old: Path) -> None:
    """Gives a folder the name `out`; what was there before gets the folder's.

    Of several processes that do so at once the last one wins.
    """
    for left in reversed(range(TRIES)):
        try:
            folder.rename(out)
            break
        except OSError as error:  # by now another process may have moved what was there
            if error.errno not in (errno.ENOTEMPTY, errno.EEXIST) or not left:
                with suppress(OSError):  # it takes no name that is taken
                    old.rename(out)
                raise
        if _exchange(folder, out):
            return
        # of a process killed after it had replaced `out`
        shutil.rmtree(old, ignore_errors=True)
        with suppress(OSError):  # another one was quicker
            out.rename(old)
    if old.exists():  # whatever is called `old` is whole: it is not removed under that name
        with suppress(OSError):
            old.rename(folder)


def _exchange(one: Path, other: Path) -> bool:
    """Gives two folders each other's name in one step; False where Linux or the disk cannot."""
    try:
        rename = ctypes.CDLL(None).renameat2
    except (AttributeError, OSError):
        return False
    here, exchange = -100, 2  # AT_FDCWD, RENAME_EXCHANGE of linux/fcntl.h and linux/fs.h
    return rename(here, os.fsencode(one), here, os.fsencode(other), exchange) == 0


def follow_umask(folder: Path) -> None:
    """Gives a folder's files the permissions that a plainly made file has: others may read them.

    safetensors 0.8 makes them readable for their owner alone, whatever the umask says. The folder
    was made plainly, and knows it. A hard link is a file of somebody else, and stays as it is.
    """
    mode = folder.stat().st_mode & 0o666
    for path in folder.rglob("*"):
        if path.is_file() and not path.is_symlink() and path.stat().st_nlink == 1:
            path.chmod(mode)


def link_or_copy(source: str | Path, target: str | Path) -> None:
    """Gives a file a second name, or copies it where the disk has no hard links."""
    try:
        os.link(source, target)
    except FileNotFoundError:
        raise
    except OSError:  # another disk, or one without hard links
        shutil.copy2(source, target)


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


def known_sha256(path: Path) -> str:
    """Returns the sha256 of a file's content, which is read once in a process.

    It is read again when its size, inode or time of change is another one.
    """
    stat = path.stat()
    identity = (stat.st_dev, stat.st_ino, stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns)
    if time.time_ns() - max(stat.st_mtime_ns, stat.st_ctime_ns) < YOUNG:
        return file_sha256(path)
    return _remembered_sha256(os.path.abspath(path), identity)


@lru_cache(maxsize=4096)
def _remembered_sha256(path: str, identity: tuple[int, ...]) -> str:
    return file_sha256(Path(path))


def file_digests(
    folder: Path,
    counts: Callable[[Path], bool] = lambda path: True,
    digest: Callable[[Path], str] = file_sha256,
) -> dict[str, str]:
    """Returns the sha256 of a folder's files by relative names, in order; several are read at once.

    Args:
        counts: whether a file does.
        digest: of a file.
    """
    paths = [
        path
        for path in sorted(folder.rglob("*"))
        if path.is_file() and "__pycache__" not in path.parts and counts(path)
    ]
    with ThreadPoolExecutor(HASHING_THREADS) as pool:  # computing a digest releases the GIL
        found = list(pool.map(digest, paths))
    names = (str(path.relative_to(folder)) for path in paths)
    return dict(zip(names, found, strict=True))


def digests_hash(digests: Mapping[str, str]) -> str:
    """Returns the sha256 over names and the sha256 of each, in the order that is given."""
    whole = hashlib.sha256()
    for name, digest in digests.items():
        whole.update(name.encode() + b"\0" + bytes.fromhex(digest))
    return whole.hexdigest()


def folder_hash(folder: Path, counts: Callable[[Path], bool] = lambda path: True) -> str:
    """Returns the sha256 over relative names and bytes of a folder's files, in order of names.

    Args:
        counts: whether a file does.
    """
    return digests_hash(file_digests(folder, counts))
