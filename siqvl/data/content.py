"""One hash for the content of prepared data, wherever it lies and however it is cut into shards."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

from siqvl.data.manifest import FILE_NAME, Manifest
from siqvl.files import folder_hash

#: What a manifest tells of already, or what only people read.
TOLD = {FILE_NAME, "images.parquet", "quarantine.jsonl"}


def content_of(folder: Path) -> str:
    """A hash that prepared folders share when their rows and pictures are equal.

    Of folders that hold several, such as benchmarks, too. What lies beside a manifest counts by its
    bytes (the floors of a benchmark), and so does all of a folder without any (the pieces of an
    unfinished preparation).

    Raises:
        UserError: a manifest is damaged.
    """
    manifests = sorted(folder.rglob(FILE_NAME))
    if not manifests:
        return folder_hash(folder)
    folders = {file.parent for file in manifests}
    told = {str(path.relative_to(folder)): Manifest.read(path) for path in sorted(folders)}
    # training mixes sources by how many of the rows are of each
    rows = {name: [one.fingerprint, one.rows_of_sources] for name, one in told.items()}
    beside = folder_hash(folder, lambda path: path.parent in folders and _counts(path))
    return hashlib.sha256(json.dumps([rows, beside]).encode()).hexdigest()


def _counts(path: Path) -> bool:
    return path.name not in TOLD and path.suffix != ".html"
