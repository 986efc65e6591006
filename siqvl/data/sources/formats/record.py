"""A published row as its file holds it, unread or damaged, and a file that cannot be read."""

from __future__ import annotations

import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

from siqvl.errors import UserError, one_line

Record = dict[str, Any]
Unread = Callable[[], Record]

BROKEN = (OSError, ValueError, EOFError, zlib.error)  # pyarrow's and json's errors are ValueErrors
SHOWN = 120  # characters of an error or a line in a message


class DamagedRecord(Exception):
    """One published row that cannot be parsed; its text says why."""


def record(item: Any) -> Record:
    """An item of a JSON file, which has to be an object.

    Raises:
        DamagedRecord: it is none.
    """
    if not isinstance(item, dict):
        raise DamagedRecord(f"expected an object, got {item!r}"[:SHOWN])
    return item


def refuse(reason: str) -> Record:
    """In place of a row: always raises DamagedRecord, with this reason."""
    raise DamagedRecord(reason)


def unreadable(file: Path, error: BaseException | str) -> UserError:
    """The error of a file that is damaged as a whole, or from some place on."""
    return UserError(f"{file} cannot be read: {shown(error)}; replace it with an intact copy")


def shown(error: BaseException | str) -> str:
    """What an error says, on one line and not too long."""
    return (error if isinstance(error, str) else one_line(error))[:SHOWN]
