"""One hash for all that is in a folder, wherever it lies."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path


def folder_hash(folder: Path, counts: Callable[[Path], bool] = lambda path: True) -> str:
    """sha256 over relative names and bytes of the files in a folder, in the order of their names.

    Args:
        counts: whether a file does.
    """
    digest = hashlib.sha256()
    for path in sorted(folder.rglob("*")):
        if path.is_file() and "__pycache__" not in path.parts and counts(path):
            digest.update(str(path.relative_to(folder)).encode() + b"\0")
            with path.open("rb") as file:
                digest.update(hashlib.file_digest(file, "sha256").digest())
    return digest.hexdigest()
