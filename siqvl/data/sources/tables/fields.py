"""Which canonical field of a row comes from where: columns, patterns of them, constants.

What a recipe maps wins over columns that happen to have a canonical name, also over those that say
the same in another way: whoever maps `answer` does not want a column `answers` beside it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from siqvl.data.sources.base import label
from siqvl.data.sources.reading.message_fields import ANSWERING, ASKING, MESSAGE_FIELDS
from siqvl.data.sources.tables.patterns import Pattern, is_pattern
from siqvl.data.sources.values.cells import Misread, is_missing
from siqvl.data.sources.values.nested import value_at
from siqvl.errors import UserError
from siqvl.recipe import Source

ABOUT = ("type", "group")  # read where they are mapped: many tables have columns of these names
FIELDS = (
    *("id", "image", "images", "question", "answer", "answers", "choices", "reasoning"),
    *MESSAGE_FIELDS,
    *ABOUT,
)
LISTS = ("images", "answers", "choices")  # what several columns can make up
#: Fields that say the same: when one of a group is mapped, columns named like the others are not
#: read.
TWINS = (
    frozenset({"image", "images"}),
    frozenset({"question", *ASKING}),
    frozenset({"answer", "answers", *ANSWERING}),
)


class Fields:
    """The mapping that a source asks for.

    Args:
        source: with its `columns`, `constants` and `ask`.

    Raises:
        UserError: a field is unknown or named twice, or a pattern cannot be read.

    Attributes:
        numbers: what a range in the pattern of a field that holds one value stands for: so many
            rows are made of a published one; empty without such a range.
    """

    def __init__(self, source: Source) -> None:
        self._source = source
        self._patterns: dict[str, Pattern] = {}
        self._check_names()
        for field, column in source.columns.items():
            if isinstance(column, str) and is_pattern(column):
                try:
                    self._patterns[field] = Pattern.parse(column)
                except ValueError as error:
                    raise UserError(f"{label(source)}: `{field}` in `columns`: {error}") from None
        ranges = [
            pattern.numbers
            for field, pattern in self._patterns.items()
            if pattern.numbers and field not in LISTS
        ]
        if len(set(ranges)) > 1:
            raise UserError(f"{label(source)}: the patterns in `columns` have different ranges")
        self.numbers = ranges[0] if ranges else range(0)
        mapped = {*source.constants, *(name for name, to in source.columns.items() if to)}
        if source.ask:
            mapped |= {"question", "answer"}
        self._hidden = {*source.columns, *source.constants, *ABOUT} | {
            twin for group in TWINS if group & mapped for twin in group - mapped
        }

    def _check_names(self) -> None:
        source = self._source
        for key, names in (("columns", source.columns), ("constants", source.constants)):
            for field in names:
                if field not in FIELDS:
                    raise UserError(
                        f"{label(source)}: unknown field `{field}` in `{key}`; "
                        f"known are {', '.join(FIELDS)}"
                    )
        if twice := sorted(source.columns.keys() & source.constants.keys()):
            raise UserError(
                f"{label(source)}: `{twice[0]}` is in `columns` and in `constants`; keep one"
            )
        asked = {"question", "answer", "answers"}
        if source.ask and (twice := sorted(asked & {*source.columns, *source.constants})):
            raise UserError(
                f"{label(source)}: `ask` says what is the question and the answer of each row; "
                f"leave `{twice[0]}` out"
            )
        for field, column in source.columns.items():
            if isinstance(column, list) and (field not in LISTS or not column):
                raise UserError(
                    f"{label(source)}: `{field}` in `columns` takes one column; several make up "
                    f"{', '.join(LISTS)}"
                )

    def columns_of(self, *fields: str) -> dict[str, str]:
        """The published columns behind some fields (of all, if none are given): column -> field."""
        found: dict[str, str] = {}
        for field, column in self._source.columns.items():
            if fields and field not in fields:
                continue
            if field in self._patterns:
                found |= dict.fromkeys(self._patterns[field].columns, field)
            elif column:
                found |= dict.fromkeys([column] if isinstance(column, str) else column, field)
        for field in fields:
            if field not in self._hidden:
                found.setdefault(field, field)
        return found

    def has(self, field: str, published: Iterable[str]) -> bool:
        """Whether rows have a field, given the published columns."""
        source = self._source
        if source.ask and field in ("question", "answer"):
            return True
        if field in source.constants or source.columns.get(field):
            return True
        return field in published and field not in self._hidden

    def of(self, record: Mapping[str, Any], number: int | None = None) -> dict[str, Any]:
        """Canonical field -> value, of every field that this row has.

        Args:
            number: one of `numbers`, where there are any.

        Raises:
            Misread: a column of a pattern or of a list has no right reading.
        """
        fields = {name: record[name] for name in FIELDS if name in record}
        fields = {name: value for name, value in fields.items() if name not in self._hidden}
        for field, column in self._source.columns.items():
            if field in self._patterns:
                fields[field] = self._filled(field, record, number)
            elif isinstance(column, list):
                fields[field] = _several(field, column, record)
            elif column:
                fields[field] = value_at(record, column)
        return fields | self._source.constants

    def _filled(self, field: str, record: Mapping[str, Any], number: int | None) -> Any:
        pattern = self._patterns[field]
        if field in LISTS and pattern.numbers:
            texts = (pattern.filled(record, one) for one in pattern.numbers)
            return [text for text in texts if text is not None]
        text = pattern.filled(record, number)
        return [text] if field in LISTS and text is not None else text


def _several(field: str, columns: list[str], record: Mapping[str, Any]) -> list[Any]:
    """The values of several columns; options at the end may be missing, in between none may."""
    values = [value_at(record, column) for column in columns]
    if field != "choices":
        return [value for value in values if not is_missing(value)]
    while values and is_missing(values[-1]):
        values.pop()
    for column, value in zip(columns, values, strict=False):
        if is_missing(value):
            raise Misread(f"choice `{column}` is empty, but one after it is not")
    return values
