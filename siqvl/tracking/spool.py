"""The spool: the folder of journals, and the delivery of all that was left in one."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from siqvl.errors import UserError, one_line
from siqvl.files import expanded
from siqvl.recipe import Recipe
from siqvl.tracking.courier import Spool
from siqvl.tracking.delivery import NotYet, deliver
from siqvl.tracking.journal import Journal, journals
from siqvl.tracking.store import client, without_password

#: Where a machine keeps spools, for recipes that do not say it; pods have it on their own disk.
FOLDER = "SIQVL_SPOOL"


def spool_of(recipe: Recipe) -> Spool:
    """The recipe's spool: what it names, else SIQVL_SPOOL, else `spool` beside its results."""
    named = recipe.tracking.spool or os.environ.get(FOLDER)
    folder = expanded(named) if named else expanded(recipe.output_dir) / "spool"
    return Spool(folder.absolute(), recipe.tracking.patience_seconds)


class Synced(NamedTuple):
    """What became of one journal."""

    run_id: str
    delivered: int  # entries
    left: str  # why there is something left; empty if nothing is


@contextmanager
def within(address: str) -> Iterator[Path]:
    """A spool as a folder here; one in a blob store is fetched, and removed once all is delivered.

    Raises:
        UserError: there is nothing at the address.
    """
    if "://" not in address:
        yield Path(address)
        return
    import fsspec

    store, root = fsspec.core.url_to_fs(address)
    if not store.isdir(root):
        raise UserError(f"{address} is no folder of that store; the warning of a task names one")
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch) / "spool"
        store.get(root.rstrip("/") + "/", str(folder) + "/", recursive=True)
        yield folder
        if not any(folder.glob("*/*")):  # else all of it stays: twice delivered is there once
            store.rm(root, recursive=True)


def sync(folder: Path, uri: str | None = None) -> Iterator[Synced]:
    """Deliver every journal of a spool that no process has; each result as it comes.

    Args:
        uri: the store, in place of the one each journal names.

    Raises:
        UserError: there is no such folder.
    """
    if not folder.is_dir():
        raise UserError(f"{folder} is no folder; a spool is what the warning of a run names")
    later: list[Journal] = []
    for path in journals(folder):
        try:
            journal = Journal.left_over(path)
        except ValueError as error:
            yield Synced(path.parent.name, 0, f"{path} is damaged: {one_line(error)}")
            continue
        if journal is None:
            yield Synced(path.parent.name, 0, "the process that writes it is still at work")
            continue
        try:
            yield _sync(journal, uri)
        except NotYet:
            later.append(journal)
    for journal in later:  # their runs were made by the others, if they are here
        try:
            yield _sync(journal, uri)
        except NotYet as error:
            yield Synced(journal.header["run_id"], 0, one_line(error))
            journal.close()


def _sync(journal: Journal, uri: str | None) -> Synced:
    run_id, store = journal.header["run_id"], uri or _address(journal)
    try:
        delivered = deliver(journal, client(store))
    except NotYet:
        raise
    except Exception as error:
        journal.close()
        return Synced(run_id, 0, f"{without_password(store)}: {one_line(error)[:300]}")
    journal.close()
    return Synced(run_id, delivered, "")


def _address(journal: Journal) -> str:
    """Its store; a password, which no journal has, is that of MLFLOW_TRACKING_URI."""
    named, given = journal.header["uri"], os.environ.get("MLFLOW_TRACKING_URI", "")
    return given if given and without_password(given) == named else named
