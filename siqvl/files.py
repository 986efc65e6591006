"""Files and folders that appear whole or not at all, and one hash for all that is in a folder."""

from __future__ import annotations

import hashlib
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

PARTIAL = ".partial"


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
