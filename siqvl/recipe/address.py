"""Addresses of MLflow stores: judged before MLflow tries to open one, and without their secrets."""

from __future__ import annotations

import os
import re
from pathlib import Path
from urllib.parse import urlsplit

from siqvl.errors import UserError, one_line

SQLITE = "sqlite:///"
SQLITE_BEGINS = b"SQLite format 3\0"
_SECRET = re.compile(r"([?&;][^=&;]*(?:pass|pwd|secret|token|key|cred|sig)[^=&;]*=)[^&;]*", re.I)


def without_password(uri: str) -> str:
    """The address with `***` for each secret: the password, or a token before the host, and query
    parameters whose names say that they hold one.

    A password may hold what should have been escaped (`/`, `@`, `?`, `#`): it ends at the last
    `@`. In `https://host:1/x@y` there is none, since what looks like a port is one.
    """
    scheme, separator, rest = uri.partition("://")
    if not separator:
        return uri
    web = scheme in ("http", "https")
    head = re.split("[/?#]", rest, maxsplit=1)[0]
    plain = re.fullmatch(r"[^:@]*(:\d*)?" if web else r"[^:@]*", head) or "@" not in rest
    if not plain:
        # An @ in a query is no end of a password that has ended before.
        known = rest if "@" not in rest.partition("?")[0] else rest.partition("?")[0]
        end = known.rindex("@")
        user, colon, _ = rest[:end].partition(":")
        rest = (f"{user}:***" if colon else "***" if web else user) + rest[end:]
    return scheme + separator + _SECRET.sub(r"\1***", rest)


def has_password(uri: str) -> bool:
    """Return whether there is a secret in an address."""
    return without_password(uri) != uri


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
    """Refuse what is there and no sqlite database: MLflow would try for 100 seconds to open it."""
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
