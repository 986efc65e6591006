"""Values inside of published rows."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from siqvl.data.sources.formats.table_file import parsed


def value_at(record: Mapping[str, Any], column: str) -> Any:
    """The value of a column, following dots into objects or their JSON; None if it is not there.

    A column whose own name has dots in it comes first.
    """
    if column in record:
        return record[column]
    first, *rest = column.split(".")
    value = record.get(first)
    for key in rest:
        value = parsed(value)
        value = value.get(key) if isinstance(value, dict) else None
    return value
