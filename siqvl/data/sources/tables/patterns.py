"""Texts with the columns of a row in them: `images/{image_id}.png`, `{answer} {unit}`.

A name in braces is a column, with dots into objects. Where a column holds nothing there is no text,
unless a question mark says that it may: `{answer} {unit?}`; what stands before such a column goes
with it, `Context: {hint?}`. After a colon may stand a width with
leading zeros, `{image_id:012d}`, as COCO names its photos. `{0..5}` is a range: it makes several
texts of one row. Two braces are one brace, as in Python.
"""

from __future__ import annotations

import re
import string
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from siqvl.data.sources.values.cells import Misread, text_of
from siqvl.data.sources.values.nested import value_at

RANGE = re.compile(r"(\d{1,4})\.\.(\d{1,4})")
WIDTH = re.compile(r"0?(\d{1,2})d?")


@dataclass(frozen=True)
class Pattern:
    """A text with columns in it.

    Attributes:
        parts: what stands before a column, the column (None at the end, "" for the range; with `?`
            where it may be empty), and the digits that its number is filled up to.
        numbers: what the range stands for; empty without one.
    """

    parts: tuple[tuple[str, str | None, int], ...]
    numbers: range

    @classmethod
    def parse(cls, text: str) -> Pattern:
        """Read a pattern.

        Raises:
            ValueError: braces do not match, a name is missing, or there are two ranges.
        """
        parts, numbers = [], range(0)
        for before, name, spec, conversion in string.Formatter().parse(text):
            width = WIDTH.fullmatch(spec or "")
            if name == "" or conversion or (spec and not width):
                raise ValueError(f"`{text}`: expected {{column}}, {{column:05d}} or {{0..5}}")
            if name and (limits := RANGE.fullmatch(name)):
                if numbers:
                    raise ValueError(f"`{text}` has two ranges")
                numbers, name = range(int(limits[1]), int(limits[2]) + 1), ""
                if not numbers:
                    raise ValueError(f"`{text}`: the range has nothing in it")
            parts.append((before, name, int(width[1]) if width else 0))
        return cls(tuple(parts), numbers)

    @property
    def columns(self) -> list[str]:
        """The columns that are asked for."""
        return [name.removesuffix("?") for _, name, _ in self.parts if name]

    def filled(self, record: Mapping[str, Any], number: int | None = None) -> str | None:
        """The text of a row, without white space around it; None where a column holds nothing.

        Raises:
            Misread: a column holds what is no text, or no number where digits are asked for.
        """
        text = ""
        for before, name, width in self.parts:
            if name is None:
                text += before
                continue
            column = name.removesuffix("?")
            value = text_of(value_at(record, column), f"`{column}`") if column else str(number)
            if not value and not name.endswith("?"):
                return None
            if width and value and not value.isdecimal():
                raise Misread(f"`{column}` is {value[:60]!r}, expected a whole number")
            text += before + value.zfill(width) if value else ""
        return text.strip()


def is_pattern(column: str) -> bool:
    """Whether what a field is mapped to is more than the name of a column."""
    return "{" in column
