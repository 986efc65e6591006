"""A recipe with every key that it has, defaults among them, as YAML that a reader can follow."""

from __future__ import annotations

from collections.abc import Iterator
from enum import Enum
from typing import Any

import yaml
from pydantic import BaseModel

from siqvl.recipe.reading.changes import NOTE
from siqvl.recipe.reading.origins import Origins, origin_of

#: What `--set` notes is no setting: the changed keys show it themselves.
LEFT_OUT = NOTE
COLUMN = 44  # where origins stand, beside what is not longer


def resolved(section: BaseModel) -> dict[str, Any]:
    """Return the content of a recipe, with the keys that a stored one leaves out too."""
    names = (name for name in type(section).model_fields if name != LEFT_OUT)
    return {name: _plain(getattr(section, name)) for name in names}


def resolved_yaml(recipe: BaseModel, found: Origins | None = None) -> str:
    """Return a recipe as YAML; loading it gives an equal one.

    Args:
        found: what keys came from, to be told behind each; None tells nothing.
    """
    lines = []
    for text, key in _lines(resolved(recipe), "", 0):
        told = "" if found is None or key is None else f"# {origin_of(key, found)}"
        lines.append(f"{text:<{COLUMN}}  {told}".rstrip() if told else text)
    return "\n".join(lines) + "\n"


def _plain(value: Any) -> Any:
    if isinstance(value, BaseModel):
        return resolved(value)
    if isinstance(value, dict):
        return {_plain(key): _plain(one) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(one) for one in value]
    return value.value if isinstance(value, Enum) else value


def _lines(value: Any, at: str, depth: int) -> Iterator[tuple[str, str | None]]:
    """Lines of a mapping, each with the dotted key whose value stands there, if one does."""
    space = "  " * depth
    for name, one in value.items():
        key, head = f"{at}.{name}".removeprefix("."), f"{space}{_scalar(name)}:"
        if isinstance(one, dict) and one:
            yield head, None
            yield from _lines(one, key, depth + 1)
        elif isinstance(one, list) and any(isinstance(entry, dict) for entry in one):
            yield head, None
            for number, entry in enumerate(one):
                yield from _entry(entry, f"{key}.{number}", depth + 1)
        else:
            yield f"{head} {_scalar(one)}", key


def _entry(entry: Any, key: str, depth: int) -> Iterator[tuple[str, str | None]]:
    """Lines of one entry of a list of mappings."""
    space = "  " * depth
    if not isinstance(entry, dict) or not entry:
        yield f"{space}- {_scalar(entry)}", key
        return
    for number, (text, of) in enumerate(_lines(entry, key, depth + 1)):
        yield (text if number else f"{space}- {text[len(space) + 2 :]}"), of


def _scalar(value: Any) -> str:
    """A value on one line."""
    text = yaml.safe_dump(value, default_flow_style=True, width=10**9, allow_unicode=True)
    return text.removesuffix("\n").removesuffix("\n...")
