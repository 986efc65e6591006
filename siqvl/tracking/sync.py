"""Delivery of what processes have left in an outbox, here or in a blob store."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from siqvl.errors import UserError, one_line
from siqvl.tracking.delivery import Delivery, Held
from siqvl.tracking.outbox import FILES, NAME, Outbox, Stream, outboxes
from siqvl.tracking.store import client, masked, without_password


class Synced(NamedTuple):
    """What became of what one process logged of one run."""

    run_id: str
    delivered: int  # entries
    left: str  # why there is something left; empty if nothing is
    refused: int = 0  # entries that the store will not have; they stay, each with its reason


@contextmanager
def fetched(address: str) -> Iterator[Path]:
    """The folder of an outbox here; one in a blob store is fetched, and put back without what was
    delivered. Nothing else there is touched, and nothing else is fetched.

    Raises:
        UserError: there is no outbox at the address.
    """
    if "://" not in address:
        yield Path(address)
        return
    import fsspec

    store, root = fsspec.core.url_to_fs(address)
    root = root.rstrip("/")
    found = store.ls(root, detail=False) if store.isdir(root) else []
    names = [name for name in (path.rsplit("/", 1)[-1] for path in found) if name.endswith(NAME)]
    if not names:
        raise UserError(f"{address} holds no {NAME}; the warning of a task names the folder of one")
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        for name in names:
            store.get_file(f"{root}/{name}", str(folder / name))
        if store.isdir(f"{root}/{FILES}"):
            store.get(f"{root}/{FILES}/", f"{folder / FILES}/", recursive=True)
        before = {name: _entries(folder / name) for name in names}
        places = _places(folder)
        try:
            yield folder
        finally:
            for place in places - _places(folder):
                store.rm(f"{root}/{FILES}/{place}", recursive=True)
            for name in names:
                after = _entries(folder / name)
                if not after and before[name]:  # of one that is damaged none was read
                    store.rm_file(f"{root}/{name}")
                elif after < before[name]:
                    Outbox(folder / name).copy_to(folder / "after")
                    store.put_file(str(folder / "after" / name), f"{root}/{name}")


def sync(folder: Path, uri: str | None = None) -> Iterator[Synced]:
    """Deliver what waits in a folder's outbox and no process has; each result as it comes.

    Args:
        uri: the store, in place of the one that each run was logged to.

    Raises:
        UserError: there is no such folder, or it holds journals of version 0.1.0.
    """
    if not folder.is_dir():
        raise UserError(f"{folder} is no folder; the warning of a run names that of its outbox")
    if any(folder.glob("*/*.jsonl")):
        raise UserError(
            f"{folder} holds journals of siqvl 0.1.0: deliver them with that version first"
        )
    for path in outboxes(folder):
        outbox = Outbox(path)
        try:
            yield from _sync(outbox, uri)
        finally:
            outbox.close()


def _sync(outbox: Outbox, uri: str | None) -> Iterator[Synced]:
    taken = {writer: outbox.take_over(writer) for writer in outbox.others()}
    locks = {writer: lock for writer, lock in taken.items() if lock}
    try:
        # A run that one process began without its store may be logged to by others.
        for stream in sorted(outbox.streams(), key=lambda one: not _begins(outbox, one)):
            if stream.writer in locks:
                yield _deliver(outbox, stream, uri)
            else:
                yield Synced(stream.run, 0, "the process that logs it is still at work")
    finally:
        for writer, lock in locks.items():
            outbox.release(writer, lock)


def _begins(outbox: Outbox, stream: Stream) -> bool:
    return outbox.waiting(stream, most=1)[0].kind == "run"


def _deliver(outbox: Outbox, stream: Stream, uri: str | None) -> Synced:
    address = uri or _address(stream)
    refused = len(outbox.refusals(stream))
    delivery = Delivery(outbox, stream, client(address))
    try:
        delivery.run()
    except Held as error:
        left = str(error)
    except Exception as error:
        left = f"{without_password(address)}: {masked(one_line(error), address)[:300]}"
    else:
        left = ""
    refused = len(outbox.refusals(stream)) - refused
    return Synced(stream.run, delivery.sent, left, refused)


def _address(stream: Stream) -> str:
    """Its store; a password, which no outbox has, is that of MLFLOW_TRACKING_URI."""
    given = os.environ.get("MLFLOW_TRACKING_URI", "")
    return given if given and without_password(given) == stream.uri else stream.uri


def _entries(path: Path) -> int:
    """How many entries there are, those that were refused among them."""
    outbox = Outbox(path)
    try:
        return len(outbox)
    finally:
        outbox.close()


def _places(folder: Path) -> set[str]:
    files = folder / FILES
    return {path.name for path in files.iterdir()} if files.is_dir() else set()
