"""Values inside of published rows."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from siqvl.composed_text import alike
from siqvl.data.sources.formats.record import DamagedRecord
from siqvl.data.sources.formats.table_file import parsed


def value_at(record: Mapping[str, Any], column: str) -> Any:
    """The value of a column, following dots into objects or their JSON; None if it is not there.

    A column whose own name has dots in it comes first.

    Raises:
        DamagedRecord: several columns are called so, see `named`.
    """
    if "." in column and column in record:
        return record[column]
    first, *rest = column.split(".")
    value = named(record, first)
    for key in rest:
        value = parsed(value)
        value = named(value, key) if isinstance(value, dict) else None
    return value


def named(record: Mapping[str, Any], name: str) -> Any:
    """The value under a name, or under one that is the same in Unicode's composed form.

    Raises:
        DamagedRecord: there are several, of which nothing tells which one is meant.
    """
    if name.isascii():
        return record.get(name)
    names = alike(name, record)
    if len(names) > 1:
        raise DamagedRecord(
            f"{len(names)} columns look like `{name}`, an accented letter being one character in "
            "one of them and two in the other"
        )
    return record[names[0]] if names else None
