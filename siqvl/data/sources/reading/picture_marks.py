"""Where a row's texts mark the places of its pictures: counted, put in order, in one form.

Every row of every source comes through here (`siqvl.data.sources.unread`), and so does a request.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from siqvl.data.image_tokens import ANY_MARK, marked
from siqvl.data.schema import Row, lists_options
from siqvl.data.sources.base import damaged_row


def placed(row: Row) -> Row:
    """Returns a row whose marks are as `siqvl.data.schema` says, its pictures in their order.

    Args:
        row: a canonical row, or whatever an adapter gave in its place, which comes back as it is.
            Its pictures need not be read, only be as many.

    Returns:
        The row; a `damaged_row` where marks and pictures do not fit together.
    """
    if not isinstance(row, dict) or not isinstance(row.get("images"), list):
        return row
    try:
        texts, order = _placed(row, len(row["images"]))
    except ValueError as error:
        return damaged_row(row.get("id", "?"), str(error), source=row.get("source", "?"))
    if order is not None:
        texts["images"] = [row["images"][number] for number in order]
    return row | texts if texts else row


def read_placed(read: Callable[[], Row]) -> Row:
    """What `placed` makes of a row that is read when it is called."""
    return placed(read())


def _placed(row: Row, count: int) -> tuple[Row, list[int] | None]:
    """The columns that change, and the order of the pictures.

    Raises:
        ValueError: see `marked`.
    """
    if "question" in row:
        return _placed_question(row, count)
    parts = ["prompt", "completion"] if "completion" in row else ["prompt"]
    for side in ("chosen", "rejected"):
        if any(ANY_MARK.search(text) for text in _asked(row.get(side))):
            raise ValueError(f"`{side}` marks pictures, which belong into the prompt of both sides")
    said = [_asked(row.get(name)) for name in parts]
    if not any("<image" in text for texts in said for text in texts):
        return {}, None
    texts, order = marked([text for part in said for text in part], count)
    left = iter(texts)
    return {name: _with_asked(row.get(name), left) for name in parts}, order


def _placed_question(row: Row, count: int) -> tuple[Row, list[int] | None]:
    question, choices = row["question"], row.get("choices")
    if not isinstance(question, str):
        return {}, None
    options = choices if isinstance(choices, list | tuple) else []
    options = [one for one in options if isinstance(one, str)]
    listed = lists_options(question, options)
    if not listed and any(ANY_MARK.search(option) for option in options):
        raise ValueError("its options mark pictures, but its question does not list them")
    (text,), order = marked([question], count)
    return ({} if text == question else {"question": text}), order


def _asked(turns: Any) -> list[str]:
    """What the user says, turn by turn."""
    found = turns if isinstance(turns, list) else []
    return [turn["content"] for turn in found if _is_asked(turn)]


def _is_asked(turn: Any) -> bool:
    return (
        isinstance(turn, dict)
        and turn.get("role") == "user"
        and isinstance(turn.get("content"), str)
    )


def _with_asked(turns: Any, texts: Iterator[str]) -> Any:
    """The same turns, in which the user says the next of some texts."""
    if not isinstance(turns, list):
        return turns
    return [turn | {"content": next(texts)} if _is_asked(turn) else turn for turn in turns]
