"""What the rows of a source come from, as one digest: when it changes, so may the rows."""

from __future__ import annotations

import hashlib
import json
import logging
import os
import re
from pathlib import Path
from typing import Any

from siqvl.data.sources.base import resolve
from siqvl.recipe import Source

logger = logging.getLogger(__name__)

COMMIT = re.compile("[0-9a-f]{40}")


def pinned(source: Source) -> Source:
    """The source with the commit that the hub has for its `revision` now, to be read as that.

    What is local, or names a commit already, stays as it is; so does a data set that the hub cannot
    be asked for, with a line in the log.

    Raises:
        UserError: the path names a variable that is not set.
    """
    path = resolve(source).path
    if path is None or _is_local(Path(path)) or COMMIT.fullmatch(source.revision or ""):
        return source
    commit = _commit(path, source.revision)
    if commit is None:
        logger.warning("the hub does not say at which commit %s is: read as it comes", path)
        return source
    return source.model_copy(update={"revision": commit})


def state(source: Source, *, ask: bool = True) -> str:
    """sha256 of the source's keys and of what is at its path now.

    Local files count by name, size and time of change, as in `make`: their content is not read. A
    hub data set counts by its commit, where the hub can be asked.

    Args:
        ask: the hub, where `revision` is no commit; else that is left out.

    Raises:
        UserError: the path names a variable that is not set.
    """
    source = resolve(source)
    # a weight does not decide which rows there are, it only repeats them
    found: dict[str, Any] = {"keys": source.model_dump(mode="json", exclude={"weight"})}
    if source.path is not None:
        path = Path(source.path)
        found["data"] = _files(path) if _is_local(path) else _known(source, ask)
    if source.pictures is not None:
        found["pictures"] = _files(Path(source.pictures))
    return hashlib.sha256(json.dumps(found, sort_keys=True).encode()).hexdigest()


def _files(path: Path) -> list[list[object]]:
    """Name, size in bytes and time of change in nanoseconds of every file below a path."""
    files = [path] if path.is_file() else []
    seen: set[str] = set()
    for folder, inner, names in os.walk(path, followlinks=True):
        if os.path.realpath(folder) in seen:  # a link that leads round in a circle
            inner.clear()
            continue
        seen.add(os.path.realpath(folder))
        files += [Path(folder, name) for name in names]
    found = []
    for file in sorted(files):
        status = file.stat() if file.exists() else file.lstat()  # a link may lead nowhere
        name = file.relative_to(path).as_posix()
        found.append([name, status.st_size, status.st_mtime_ns])
    return found


def _is_local(path: Path) -> bool:
    return path.exists()


def _known(source: Source, ask: bool) -> str | None:
    if COMMIT.fullmatch(source.revision or ""):
        return source.revision
    return _commit(str(source.path), source.revision) if ask else None


def _commit(path: str, revision: str | None) -> str | None:
    """The commit a hub data set is at; None when the hub cannot be asked."""
    from huggingface_hub import HfApi

    try:
        return HfApi().dataset_info(path, revision=revision, timeout=10).sha
    except Exception:  # offline, unknown, private, gated: each its own exception
        return None
