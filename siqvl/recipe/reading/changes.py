"""Changes of a recipe without a file: `--set stages.vqa_sft.learning_rate=1e-4`.

A change names a key by its place, entries of lists by their number, and has a value as YAML has it.
It is judged by the recipe's own schema: a key that there is not is an error, and a value becomes
what its key takes, so that `1e-4` is a number, which YAML 1.1 reads as a text.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from copy import deepcopy
from dataclasses import dataclass
from difflib import get_close_matches
from enum import Enum
from itertools import combinations
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from pydantic import BaseModel

from siqvl.errors import UserError
from siqvl.recipe.address import without_password
from siqvl.recipe.reading.document import parse_value

OPTION = "--set"
HOW = f"{OPTION} stages.vqa_sft.learning_rate=1e-4"
HELP = (
    f"Changes one key of the recipe, as {HOW}; may be given several times, or as a JSON list. "
    "Entries of lists are named by their number: stages.vqa_sft.sources.0.max_samples=100."
)
LONGEST = 200  # characters of a value that is told
NULL = ("null", "~")
NOTE = "changes"  # the recipe's key for what was changed
#: A field that may hold anything.
ANYTHING = (Any, object)


@dataclass(frozen=True)
class Change:
    """One key, and the text of its new value."""

    key: str
    text: str

    def __str__(self) -> str:
        """Return the change as it is logged: on one line, without a password, and not too long."""
        text = " ".join(without_password(self.text).split())
        return f"{self.key}={text if len(text) <= LONGEST else text[:LONGEST] + '…'}"

    @property
    def parts(self) -> list[str]:
        """Return the key, part by part."""
        return self.key.split(".")

    @property
    def other(self) -> str | None:
        """Return the key that cannot stand beside this one, if there is one."""
        section, _, last = self.key.rpartition(".")
        either = {"max_steps": "epochs", "epochs": "max_steps"}
        return f"{section}.{either[last]}" if last in either and self.text not in NULL else None


def parse_changes(given: Iterable[str]) -> list[Change]:
    """Read what stands behind `--set`, each `key=value`, or a JSON list of those.

    Raises:
        UserError: it is neither, has an empty value, sets a key twice, or the note of changes.
    """
    changes = [_change(text) for words in given for text in _listed(words)]
    for change in changes:
        if change.parts[0] == NOTE:
            raise UserError(f"{OPTION} {change}: `{NOTE}` is what {OPTION} notes, and no setting")
    for one, other in combinations(changes, 2):
        short, long = sorted((one, other), key=lambda change: len(change.parts))
        if long.parts[: len(short.parts)] == short.parts:
            raise UserError(
                f"{OPTION} sets `{short.key}` twice, as {one} and as {other}; leave one out"
            )
    return changes


def with_changes(
    content: dict[str, Any], changes: Sequence[Change], root: type[BaseModel]
) -> dict[str, Any]:
    """Return a recipe's whole content with some keys set; the value that was there is replaced.

    Sections that are not there, or null, are begun by a key in them.

    Args:
        content: as `Recipe.model_dump(mode="json")` has it.
        root: the class that it is of.

    Raises:
        UserError: there is no such key, or its value is no YAML.
    """
    content = deepcopy(content)
    for change in changes:
        _set(content, change, root)
    return content


def in_short(changes: Sequence[str], most: int = 80) -> str:
    """Return changes as a name shows them: the last two parts of keys, `, +2` for those left out.

    Args:
        changes: each `key=value`.
        most: characters, but for the first change, which is cut there.
    """
    short = []
    for change in changes:
        key, _, value = change.partition("=")
        short.append(".".join(key.split(".")[-2:]) + f"={value}")
    shown, left = "", len(short)
    for one in short:
        longer = f"{shown}, {one}" if shown else one
        if shown and len(longer) > most:
            break
        shown, left = longer, left - 1
    shown = shown if len(shown) <= most else shown[: most - 1] + "…"
    return shown + (f", +{left}" if left else "")


def _listed(words: str) -> list[str]:
    """The texts of a JSON list, or the text itself."""
    if not words.lstrip().startswith("["):
        return [words]
    try:
        texts = json.loads(words)
    except ValueError:
        texts = None
    if not isinstance(texts, list) or not all(isinstance(text, str) for text in texts):
        raise UserError(f"{OPTION} takes `key=value`, or a JSON list: {OPTION} '[\"key=value\"]'")
    return texts


def _change(text: str) -> Change:
    key, equals, value = text.partition("=")
    key, value = key.strip(), value.strip()
    if not (key and equals) or key.split(".") != [part.strip() for part in key.split(".") if part]:
        raise UserError(f"{OPTION} {without_password(text)}: write a key and its value, as {HOW}")
    if not value:
        raise UserError(
            f"{OPTION} {key}= has no value: write {key}=null for none, or {key}='\"\"' for an "
            "empty text"
        )
    return Change(key, value)


def _set(content: dict[str, Any], change: Change, root: type[BaseModel]) -> None:
    """Put one value in its place."""
    here: Any = content
    kinds = (root,)
    *way, last = change.parts
    for number, part in enumerate([*way, last]):
        kinds = _inside(kinds, here, part, change)
        place: Any = int(part) if isinstance(here, list) else part
        if number == len(way):
            here[place] = _value(change, kinds)
            return
        below = here.get(place) if isinstance(here, dict) else here[place]
        if not isinstance(below, dict | list):
            below = here[place] = _empty(kinds, below, change, way[: number + 1])
        here = below


def _inside(kinds: tuple[Any, ...], here: Any, part: str, change: Change) -> tuple[Any, ...]:
    """What a part of something may be, by its name or number.

    Raises:
        UserError: there is none.
    """
    if isinstance(here, list):
        if part not in map(str, range(len(here))):  # 00 would be another name of 0
            numbers = f"its entries are 0 to {len(here) - 1}" if here else "it is empty"
            raise UserError(f"{OPTION} {change}: no entry `{part}` in a list: {numbers}")
        entries = [get_args(kind)[0] for kind in kinds if get_origin(kind) is list]
        return _members(entries) or ANYTHING
    found: list[Any] = []
    names: list[str] = []
    for kind in kinds:
        if kind in ANYTHING:
            found.append(Any)
        elif get_origin(kind) is dict:
            found.append(get_args(kind)[1])
        elif _is_section(kind):
            names += kind.model_fields
            if part in kind.model_fields:
                found.append(kind.model_fields[part].annotation)
    if not found:
        close = get_close_matches(part, names, n=1)
        hint = f", did you mean `{close[0]}`?" if close else ""
        raise UserError(f"{OPTION} {change}: there is no key `{part}`{hint}")
    return _members(found)


def _empty(kinds: tuple[Any, ...], value: Any, change: Change, way: list[str]) -> dict[str, Any]:
    """What is begun where a key is set in a section that is not there.

    Raises:
        UserError: a value is there, or no section can be.
    """
    if value is None and any(_is_section(kind) or get_origin(kind) is dict for kind in kinds):
        return {}
    key = ".".join(way)
    raise UserError(f"{OPTION} {change}: `{key}` holds no keys: set it as a whole, as {key}=…")


def _value(change: Change, kinds: tuple[Any, ...]) -> Any:
    """A value as its key takes it: a text as it stands, without YAML's ideas of `no` and `12e3`."""
    if change.text in NULL:
        return None
    if change.text[0] not in "\"'" and all(map(_is_text, kinds)):
        return change.text
    return parse_value(change.text, f"{OPTION} {change}")


def _is_text(kind: Any) -> bool:
    if get_origin(kind) is Literal:
        return all(isinstance(value, str) for value in get_args(kind))
    return kind is NoneType or (isinstance(kind, type) and issubclass(kind, str))


def _is_section(kind: Any) -> bool:
    return isinstance(kind, type) and issubclass(kind, BaseModel) and not issubclass(kind, Enum)


def _members(kinds: Iterable[Any]) -> tuple[Any, ...]:
    """The classes that annotations are made of: unions taken apart, constraints left out."""
    found: list[Any] = []
    for kind in kinds:
        if get_origin(kind) is Annotated:
            found += _members(get_args(kind)[:1])
        elif get_origin(kind) in (Union, UnionType):
            found += _members(get_args(kind))
        else:
            found.append(kind)
    return tuple(found)
