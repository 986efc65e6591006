"""One cell of a published table -> a text, or a list: as it was written, or a reason why not.

Only cells of fields that hold lists (`answers`, `choices`, `images`) are ever taken apart. An
answer that looks like JSON or like a number is a text.
"""

from __future__ import annotations

import ast
import io
import json
import math
import tokenize
from datetime import date, datetime, time
from decimal import Decimal
from string import ascii_uppercase
from typing import Any

from siqvl.composed_text import composed
from siqvl.data.sources.formats.record import DamagedRecord

LIST_CHARACTERS = 1_000_000  # of a cell that holds the text of a list
SHOWN = 60  # characters of a value in a reason


class Misread(DamagedRecord):
    """A cell that has no right reading; its text names the field and says why."""


def is_missing(value: Any) -> bool:
    """Whether a cell holds nothing: null, an empty text, or NaN, pandas' missing value."""
    if isinstance(value, float):
        return math.isnan(value)
    return value is None or (isinstance(value, str) and not value.strip())


def text_of(value: Any, field: str) -> str:
    """The text of a cell, composed (NFC); empty where nothing is there.

    A whole number may be published as a float: where one is missing, pandas makes them all floats.
    Dates and times are written as in ISO 8601, decimals with all their digits.

    Raises:
        Misread: it is neither text nor a number, a date or a decimal; the reason names its type.
    """
    if is_missing(value):
        return ""
    if isinstance(value, str):
        return composed(value.strip())
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    if isinstance(value, bool | int | Decimal) or (
        isinstance(value, float) and math.isfinite(value)
    ):
        return str(value)
    if isinstance(value, datetime | date | time):
        return value.isoformat()
    raise Misread(f"{field} is {_named(value)}, expected a text or a number")


def list_of(value: Any, field: str) -> list[Any]:
    """The items of a cell that holds a list, or its text: JSON, or a Python literal as in a CSV.

    One text that is no list is the only item, except of `choices`. An object whose keys are letters
    from A on is the list of its values.

    Raises:
        Misread: it begins like a list and is none, or is something else.
    """
    if is_missing(value):
        return []
    if isinstance(value, str):
        value = _written_list(value, field)
    if isinstance(value, list | tuple):
        return list(value)
    if isinstance(value, dict):
        keys = [key for key in value if not is_missing(value[key])]
        if keys and keys == list(ascii_uppercase[: len(keys)]):
            return [value[key] for key in keys]
        has = ", ".join(map(str, value))[:SHOWN] or "nothing"
        raise Misread(
            f"{field} is an object of {has}, expected a list; reach into it with a dot, as in "
            f"`{field}: {field}.{next(iter(value), 'name')}`"
        )
    if field == "choices":
        what = f"the text {_short(value)}" if isinstance(value, str) else _named(value)
        raise Misread(f"choices is {what}, expected a list")
    return [value]


def _written_list(text: str, field: str) -> Any:
    """The list whose text a cell holds; a text that does not begin like one stays as it is."""
    if not (text.lstrip().startswith("[") and text.rstrip().endswith("]")):
        return text
    if len(text) > LIST_CHARACTERS:
        raise Misread(f"{field} is a list of {len(text)} characters, {LIST_CHARACTERS} are read")
    try:
        found = json.loads(text)
    except (ValueError, RecursionError):
        found = _literal(text, field)
    if isinstance(found, list):
        return found
    if field == "images":  # a file may be called so
        return text
    raise Misread(f"{field} begins like a list and is none: {_short(text)}")


def _literal(text: str, field: str) -> Any:
    """The value of a Python literal; None when the text is none."""
    try:
        found = ast.literal_eval(text.strip())
    except (ValueError, SyntaxError, MemoryError, RecursionError):
        found = None
    if found is None or _joins_texts(text):  # numpy prints ['a' 'b'], which Python reads as ['ab']
        if "'" in text or '"' in text:
            raise Misread(
                f"{field} is no JSON and no Python list: {_short(text)}; numpy's way of printing "
                "is not read, write its `tolist()`"
            )
        return None
    return found


def _joins_texts(text: str) -> bool:
    """Whether two string literals stand side by side, which Python makes one."""
    before = None
    try:
        for token in tokenize.generate_tokens(io.StringIO(text.strip()).readline):
            if token.type in (tokenize.NL, tokenize.NEWLINE):
                continue
            if token.type == before == tokenize.STRING:
                return True
            before = token.type
    except (tokenize.TokenError, SyntaxError):
        return True
    return False


def _named(value: Any) -> str:
    names = ((list | tuple, "a list"), (dict, "an object"), (bytes, "bytes"), (int, "a number"))
    for kind, name in names:
        if isinstance(value, kind):
            return name
    return f"of type {type(value).__name__}"


def _short(text: str) -> str:
    return repr(text if len(text) <= SHOWN else text[:SHOWN] + "…")
