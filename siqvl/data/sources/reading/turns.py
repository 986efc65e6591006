"""The turns of a published conversation, in every layout in which they are published.

A conversation is a list of turns, or an object of lists. A turn is `{"role": …, "content": …}` or
`{"from": …, "value": …}`; `{"user": …, "assistant": …}` is two. What is said is text, or a list of
typed parts (`{"type": "image"}`, `{"type": "text", "text": …}`), whose pictures become `<image>`
marks. Whatever is not understood is a `DamagedRecord` that says what it is, and where.
"""

from __future__ import annotations

import base64
import binascii
from dataclasses import dataclass
from decimal import Decimal
from typing import Any, NoReturn

from siqvl.data.image_tokens import IMAGE_MARK
from siqvl.data.schema import Message, message
from siqvl.data.sources.formats.table_file import DamagedRecord, parsed
from siqvl.data.sources.values.cells import Misread, text_of

#: Published names of who speaks, in any case -> ours. Tools are not among them.
ROLES = {
    **dict.fromkeys(("user", "human"), "user"),
    **dict.fromkeys(("assistant", "gpt", "chatgpt", "bot", "model", "bing", "bard"), "assistant"),
    "system": "system",
}
#: Under what keys a turn says who speaks, and what.
WHO, WHAT = ("role", "from"), ("content", "value")
#: The keys of two turns in one.
PAIR = ("user", "assistant")
#: Types of a part that is a picture, and the keys under which it may hold it.
PICTURES = {
    "image": ("image", "image_url", "url", "path"),
    "image_url": ("image_url", "url"),
}


@dataclass(frozen=True)
class Turn:
    """What one side says at a time.

    Attributes:
        role: `system`, `user` or `assistant`.
        text: without the white space around it; `<image>` marks where typed parts hold pictures.
        pictures: what the parts hold in place of pictures: bytes, names, objects of both.
    """

    role: str
    text: str
    pictures: tuple[Any, ...] = ()

    @property
    def message(self) -> Message:
        """The turn as a canonical message."""
        return message(self.role, self.text)


def read_turns(value: Any, column: str) -> list[Turn]:
    """Returns the turns of a published conversation; a system turn that says nothing is none.

    Args:
        value: a list of turns, an object of lists, or one turn.
        column: where it stands, for the reasons.

    Raises:
        DamagedRecord: it is none of these, or a turn is not understood or empty; its text says
            which one.
    """
    turns: list[Turn] = []
    for number, item in enumerate(_items(value, column), start=1):
        turns += _turns(item, f"turn {number} of {column}")
    return turns


def read_conversation(value: Any, column: str) -> list[Turn]:
    """`read_turns` of a column that is nothing but a conversation: it may be published as JSON."""
    return read_turns(parsed(value), column)


def said(value: Any, where: str) -> str:
    """Returns what is said as text, without the white space around it; empty for null.

    Numbers and dates are written out as in any other cell, see `cells.text_of`; `true` is no text.

    Raises:
        DamagedRecord: it is no text, and nothing that can be written out.
    """
    if isinstance(value, str):
        return value.strip()
    if not isinstance(value, bool):
        try:
            return text_of(value, where)
        except Misread:
            pass
    _refuse(f"{where} is {kind_of(value)}, expected text")


def kind_of(value: Any) -> str:
    """Names what a value is, as JSON calls it."""
    if isinstance(value, bool):
        return f"{value}".lower()
    for kinds, name in _KINDS:
        if isinstance(value, kinds):
            return name
    return "null" if value is None else f"a {type(value).__name__}"


_KINDS: tuple[tuple[Any, str], ...] = (
    (str, "text"),
    (int | float | Decimal, "a number"),
    (dict, "an object"),
    (list | tuple, "a list"),
)


def _items(value: Any, column: str) -> list[Any]:
    """The turns of a list, or of an object that has a list for each of their keys."""
    if isinstance(value, dict):
        lists = {key: one for key, one in value.items() if isinstance(one, list | tuple)}
        keys = [key for key in (*WHO, *WHAT) if key in lists]
        if not {*keys} & {*WHO} or not {*keys} & {*WHAT}:
            keys = [key for key in PAIR if key in lists]
        if len(keys) < 2:
            return [value]
        if len({len(lists[key]) for key in keys}) > 1:
            counts = ", ".join(f"{len(lists[key])} of `{key}`" for key in keys)
            _refuse(f"{column} is an object of lists that differ in length: {counts}")
        columns = [lists[key] for key in keys]
        value = [dict(zip(keys, one, strict=True)) for one in zip(*columns, strict=True)]
    if not isinstance(value, list | tuple):
        _refuse(f"{column} is {kind_of(value)}, expected a list of turns")
    if not value:
        _refuse(f"{column} has no turns")
    return list(value)


def _turns(item: Any, where: str) -> list[Turn]:
    if not isinstance(item, dict):
        _refuse(f"{where} is {kind_of(item)}, expected an object of role and content")
    who = _filled(item, WHO, where)
    if who is None:
        if not any(key in item for key in PAIR):
            keys = ", ".join(f"`{key}`" for key in [*item][:6]) or "no keys"
            _refuse(
                f"{where} has {keys}, expected `role` and `content`, `from` and `value`, or "
                "`user` and `assistant`"
            )
        pair = [_turn(role, item.get(role), where) for role in PAIR]
        return [turn for turn in pair if turn is not None]
    role = ROLES.get(who.strip().lower()) if isinstance(who, str) else None
    if role is None:
        shown = f'role "{who[:40]}"' if isinstance(who, str) else f"{kind_of(who)} for its role"
        _refuse(f"{where} has {shown}: known are {', '.join(sorted(ROLES))}")
    for calls in ("tool_calls", "function_call"):
        if item.get(calls):
            _refuse(f"{where} has `{calls}`, and tools are not read")
    for key in ("loss", "weight"):  # ms-swift, and OpenAI: whether an answer is learnt
        if role == "assistant" and item.get(key) in (False, 0):
            _refuse(f"{where} is not to be learnt (`{key}`), which is not read: leave the row out")
    turn = _turn(role, _filled(item, WHAT, where), where)
    return [] if turn is None else [turn]


def _turn(role: str, content: Any, where: str) -> Turn | None:
    """A turn; None for a system turn that says nothing."""
    pictures: tuple[Any, ...] = ()
    if isinstance(content, list | tuple):
        text, pictures = _parts(content, role, where)
    else:
        text = said(content, f"what the {role} says in {where}")
    if text:
        return Turn(role, text, pictures)
    if role == "system":
        return None
    _refuse(f"{where} is empty: the {role} says nothing")


def _parts(
    parts: list[Any] | tuple[Any, ...], role: str, where: str
) -> tuple[str, tuple[Any, ...]]:
    """Typed parts as one text, as a chat template puts them together, and their pictures."""
    texts: list[str] = []
    pictures: list[Any] = []
    for number, part in enumerate(parts, start=1):
        here = f"part {number} of {where}"
        if not isinstance(part, dict):
            _refuse(f"{here} is {kind_of(part)}, expected an object with a `type`")
        kind = _type_of(part, here)
        text, picture = part.get("text"), _first(part, PICTURES.get(kind, ("image", "image_url")))
        if kind == "text":
            if text is None or picture is not None:
                _refuse(f"{here} is {'no text' if text is None else 'text beside a picture'}")
            texts.append(text if isinstance(text, str) else said(text, f"the text of {here}"))
            continue
        if text or role != "user":
            _refuse(f"{here} is a picture {'beside text' if text else 'that no user shows'}")
        texts.append(IMAGE_MARK)
        pictures += [] if picture is None else [_encoded(picture)]
    return "".join(texts).strip(), tuple(pictures)


def _type_of(part: dict[str, Any], here: str) -> str:
    """The type of a part; Qwen-VL's `{"image": …}` and `{"text": …}` do without."""
    kind = part.get("type")
    if kind is None:
        named = [key for key in ("text", "image", "image_url") if part.get(key) is not None]
        if len(named) == 1:
            return named[0]
    if isinstance(kind, str) and kind in ("text", *PICTURES):
        return kind
    shown = f'type "{kind[:40]}"' if isinstance(kind, str) else "no type"
    _refuse(f"{here} has {shown}: known are {', '.join(PICTURES)}, text")


def _encoded(value: Any) -> Any:
    """A picture of a part: bytes, a name, or the hub's object of both."""
    if isinstance(value, dict) and value.get("url") is not None:  # OpenAI's image_url
        value = value["url"]
    if isinstance(value, str) and value[:5].lower() == "data:":
        try:
            # in lines, where a program wrapped them
            return base64.b64decode("".join(value.partition(",")[2].split()), validate=True)
        except (binascii.Error, ValueError):
            return f"{value[:40]}… (no base64)"
    return value


def _filled(item: dict[str, Any], keys: tuple[str, ...], where: str) -> Any:
    """The value under one of some keys, of which concatenated sets have several; None if none."""
    values = {key: item[key] for key in keys if item.get(key) is not None}
    if len(values) > 1 and len({str(value) for value in values.values()}) > 1:
        _refuse(f"{where} has both {' and '.join(f'`{key}`' for key in values)}, which differ")
    return next(iter(values.values()), None)


def _first(item: dict[str, Any], keys: tuple[str, ...]) -> Any:
    return next((item[key] for key in keys if item.get(key) is not None), None)


def _refuse(reason: str) -> NoReturn:
    raise DamagedRecord(reason)
