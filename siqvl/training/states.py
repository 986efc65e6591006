"""Resumable states on disk: folders `checkpoint-<step>` that are whole, or are not used.

A state is written into a staging folder, sealed with the checksums of its files, waited for until
it is on disk, and appears under its name by one rename. Whatever a killed run or a full disk leaves
half done has another name, and is cleared away by the next run.
"""

from __future__ import annotations

import errno
import json
import logging
import re
import shutil
from contextlib import suppress
from pathlib import Path

from siqvl.files import file_sha256, follow_umask, sync

logger = logging.getLogger(__name__)

CHECKSUMS = "checksums.json"
#: Folders that begin like this are being written or removed; no run reads them.
STAGING = ".saving-"
DISK_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
_NAME = re.compile(r"checkpoint-(\d+)")  # Hugging Face's


def state_step(state: Path) -> int:
    """Optimizer steps that were done when a state was saved."""
    match = _NAME.fullmatch(state.name)
    if match is None:
        raise ValueError(f"{state} is no resumable state")
    return int(match[1])


def staged_state(work_dir: Path, step: int) -> Path:
    """Where the state of a step is written until `publish`; Hugging Face names the inner folder."""
    return work_dir / f"{STAGING}{step}" / f"checkpoint-{step}"


def states(work_dir: Path) -> list[Path]:
    """All states by their names, the newest first; they may be torn."""
    found = [path for path in work_dir.glob("checkpoint-*") if _NAME.fullmatch(path.name)]
    return sorted(found, key=state_step, reverse=True)


def seal(state: Path) -> None:
    """Write `checksums.json`, and wait until all files of a state are on disk.

    Raises:
        OSError: the disk is full, or does not let us write.
    """
    content = {
        name: {"bytes": path.stat().st_size, "sha256": file_sha256(path)}
        for name, path in _files(state).items()
    }
    (state / CHECKSUMS).write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
    follow_umask(state)
    for path in sorted(state.rglob("*")):
        sync(path)
    sync(state)


def publish(staged: Path, work_dir: Path) -> Path:
    """Give a sealed state its name; it replaces one of the same step.

    Raises:
        OSError: the disk does not let us rename.
    """
    state = work_dir / staged.name
    discard(state)
    staged.rename(state)
    sync(work_dir)
    staged.parent.rmdir()
    return state


def forget_older(newest: Path, keep: int) -> None:
    """Remove all but `keep` states up to `newest`, which is always kept."""
    step = state_step(newest)
    older = [state for state in states(newest.parent) if state_step(state) < step]
    for state in older[max(keep, 1) - 1 :]:
        discard(state)


def discard(state: Path) -> None:
    """Remove a state, if it is there; one that is half removed does not have its name any more."""
    doomed = state.with_name(f"{STAGING}{state.name}.old")
    shutil.rmtree(doomed, ignore_errors=True)
    with suppress(FileNotFoundError):
        state.rename(doomed)
    shutil.rmtree(doomed, ignore_errors=True)


def clear_leftovers(work_dir: Path) -> None:
    """Remove what dead runs left half written or half removed."""
    for path in work_dir.glob(f"{STAGING}*"):
        shutil.rmtree(path, ignore_errors=True)


def damage(state: Path) -> str | None:
    """What is wrong with a state; None if every file is, byte for byte, the one that was sealed.

    Nothing of it is parsed but `checksums.json`, so that a state which is not as it was written is
    neither unpickled nor loaded.
    """
    try:
        sealed = json.loads((state / CHECKSUMS).read_text(encoding="utf-8"))
        expected = {name: (entry["bytes"], entry["sha256"]) for name, entry in sealed.items()}
    except FileNotFoundError:
        return f"it has no {CHECKSUMS}"
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return f"its {CHECKSUMS} is damaged"
    files = _files(state)
    for name in sorted(expected.keys() ^ files.keys()):
        return f"it lacks {name}" if name in expected else f"{name} does not belong to it"
    for name, (size, digest) in expected.items():
        try:
            if (found := files[name].stat().st_size) != size:
                return f"{name} has {found} bytes where {size} belong"
            if file_sha256(files[name]) != digest:
                return f"the checksum of {name} is wrong"
        except OSError as error:
            return f"{name} cannot be read ({error.strerror})"
    return None


def last_good_state(work_dir: Path) -> Path | None:
    """The newest state that is whole. Newer ones are removed, so that their steps can be saved."""
    clear_leftovers(work_dir)
    for state in states(work_dir):
        reason = damage(state)
        if reason is None:
            return state
        logger.warning("%s is not used and is removed: %s", state, reason)
        discard(state)
    return None


def disk_full(error: BaseException) -> bool:
    """Whether an error while saving says that the disk is full, in the words of any writer.

    safetensors gives the error's number as text, and torch's writer only that a write came short.
    """
    if isinstance(error, OSError):
        return error.errno in DISK_FULL
    text = str(error)
    if type(error).__name__ == "SafetensorError":
        return any(f"os error {number})" in text for number in DISK_FULL)
    torch_says = ("PytorchStreamWriter failed", "inline_container.cc", "iostream error")
    return isinstance(error, RuntimeError) and any(said in text for said in torch_says)


def _files(state: Path) -> dict[str, Path]:
    """Everything in a state that is no plain folder, by its path within, but for the checksums."""
    paths = (path for path in sorted(state.rglob("*")) if path.is_symlink() or not path.is_dir())
    named = {path.relative_to(state).as_posix(): path for path in paths}
    return {name: path for name, path in named.items() if name != CHECKSUMS}
