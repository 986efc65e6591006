"""Read all that a file of rows gives."""

from pathlib import Path
from typing import Any

from siqvl.data.sources.formats.table_file import DamagedRecord, count_records, unread_records


def read(path: Path, *, backwards: bool = False) -> list[Any]:
    """Rows in their order, and of the damaged ones the reasons.

    Args:
        backwards: read the last row first: any of them may be read at any time.
    """
    unread = [*unread_records(path)]
    rows: list[Any] = []
    for one in reversed(unread) if backwards else unread:
        try:
            rows.append(one())
        except DamagedRecord as error:
            rows.append(str(error))
    assert count_records(path) == len(rows)
    return rows[::-1] if backwards else rows
