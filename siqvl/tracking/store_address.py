"""The address of an MLflow store, judged before MLflow tries to open it, which can take minutes."""

from __future__ import annotations

import os
from pathlib import Path
from urllib.parse import urlsplit

from siqvl.errors import UserError, one_line

SQLITE = "sqlite:///"
SQLITE_BEGINS = b"SQLite format 3\0"


def with_home(uri: str) -> str:
    """Return an address with `~` at the front of its path filled in."""
    scheme = next((one for one in (SQLITE, "file://") if uri.startswith(one)), "")
    return scheme + os.path.expanduser(uri.removeprefix(scheme))


def check_address(uri: str) -> None:
    """Judge an address without asking the store.

    Raises:
        UserError: it is none, or a sqlite file that is no database.
    """
    try:
        parts = urlsplit(uri)
        broken = parts.scheme in ("http", "https") and not (parts.hostname and parts.port != 0)
    except ValueError:  # brackets that do not close, a port that is none
        broken = True
    sqlite = uri.startswith("sqlite:")
    if broken or "\0" in uri or (sqlite and not uri.startswith(SQLITE)):
        # the address is left out: it may hold a password
        raise UserError(
            "the address of the MLflow store is none: write `tracking.uri` or MLFLOW_TRACKING_URI "
            "like https://host:5000 or sqlite:///mlflow.db"
        )
    if sqlite:
        _check_file(Path(uri.removeprefix(SQLITE).partition("?")[0]))


def _check_file(path: Path) -> None:
    """Refuse what is there and no sqlite database; MLflow would try for 100 seconds to open it."""
    try:
        with open(path, "rb") as file:
            begin = file.read(len(SQLITE_BEGINS))
    except FileNotFoundError:
        return  # MLflow makes one
    except OSError as error:
        reason = one_line(error)
    else:
        if begin in (b"", SQLITE_BEGINS):
            return
        reason = "it is no sqlite database"
    raise UserError(
        f"MLflow store {SQLITE}{path} cannot be used: {reason}; correct `tracking.uri` or "
        "MLFLOW_TRACKING_URI"
    )
