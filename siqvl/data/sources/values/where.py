"""Which rows of a table a source takes: those that hold certain values in certain columns."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from siqvl.data.sources.values.cells import Misread, is_missing, text_of
from siqvl.data.sources.values.nested import value_at
from siqvl.recipe import Present, Source

Condition = Callable[[Any], bool]


def wanted(source: Source) -> Callable[[Mapping[str, Any]], bool] | None:
    """Whether a published row is one that `where` asks for; None where all are."""
    if not source.where:
        return None
    conditions = [(column, _condition(value)) for column, value in source.where.items()]
    return lambda record: all(holds(value_at(record, column)) for column, holds in conditions)


def _condition(value: Any) -> Condition:
    if isinstance(value, Present):
        return lambda found: _holds_something(found) == value.present
    values = value if isinstance(value, list) else [value]
    return lambda found: any(_equal(found, one) for one in values)


def _holds_something(found: Any) -> bool:
    return not (is_missing(found) or found in ([], {}, b""))


def _equal(found: Any, value: Any) -> bool:
    """Compare a cell with what a recipe says; a CSV's cells are all texts, and so are compared."""
    if isinstance(found, bool) or isinstance(value, bool):
        # YAML's true is no 1, and its text is written in any case: JSON, Python, R and Excel differ
        text = found.strip().lower() if isinstance(found, str) else None
        return found is value or text == str(value).lower()
    try:
        return found == value or text_of(found, "") == text_of(value, "")
    except Misread:
        return False
