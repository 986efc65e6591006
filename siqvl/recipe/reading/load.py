"""Reading of a recipe file over its base, and one line that says what is wrong with it."""

from __future__ import annotations

import os
from difflib import get_close_matches
from pathlib import Path
from typing import Any, get_args

from pydantic import BaseModel, ValidationError

from siqvl.errors import UserError
from siqvl.recipe.address import without_password
from siqvl.recipe.reading.document import read_document
from siqvl.recipe.reading.shipped import shipped
from siqvl.recipe.section import Section

LONGEST = 200  # characters of a value in a sentence


def read_recipe(path: Path) -> dict[str, Any]:
    """Return a recipe file's whole content, that of its base included.

    Raises:
        UserError: see `read_document` and `with_base`.
    """
    content = read_document(path)
    try:
        return with_base(content, (path,))
    except UserError as error:
        raise UserError(f"{path}: {error.message}") from None


def with_base(content: dict[str, Any], files: tuple[Path, ...] = ()) -> dict[str, Any]:
    """Return a recipe's whole content: one with `base: <file>` holds only what differs from it.

    Sections are merged key by key; lists, sources among them, are replaced whole. The base is
    looked for from the folder where one is, as all paths of a recipe are.

    Args:
        files: what led here; the last one holds the content.

    Raises:
        UserError: the base is missing or no recipe file, or bases go round in a circle.
    """
    if "base" not in content:
        return content
    changes = {key: value for key, value in content.items() if key != "base"}
    named = content["base"]
    if not isinstance(named, str) or not named:
        raise UserError(f"`base` should be the path of a recipe file (got {shown(named)})")
    base = shipped(named)
    if not os.path.exists(base):
        beside = files[-1].parent / base if files else base
        hint = f", where {beside} is: write `base: {beside}`" if os.path.exists(beside) else ""
        raise UserError(
            f"`base`: {named} does not exist; it is looked for from the folder where you are{hint}"
        )
    below = read_document(base)
    if os.path.realpath(base) in map(os.path.realpath, files):
        raise UserError(f"`base` goes round in a circle: {' -> '.join(map(str, (*files, base)))}")
    return merged(with_base(below, (*files, base)), changes)


def merged(base: dict[str, Any], changes: dict[str, Any]) -> dict[str, Any]:
    """Return the base with some changes, section by section."""
    both = {key for key in base.keys() & changes.keys() if isinstance(changes[key], dict)}
    deeper = {key: merged(base[key], changes[key]) for key in both if isinstance(base[key], dict)}
    return base | changes | deeper


def explain(error: ValidationError, root: type[BaseModel]) -> str:
    """Return every complaint of pydantic on one line, each with the dotted key it is about.

    Args:
        root: the class that was to be read, for keys that are spelt like the wrong one.
    """
    complaints = []
    for item in error.errors():
        key = ".".join(str(part) for part in item["loc"]) or "top level"
        if item["type"] == "extra_forbidden":
            complaints.append(f"unknown key `{key}`{_suggest(root, item['loc'])}")
        elif item["type"] == "missing":
            complaints.append(f"missing key `{key}`")
        else:
            said = item["msg"].removeprefix("Value error, ")
            # a whole section in the sentence would hide what it says
            got = "" if isinstance(item["input"], dict) else f" (got {shown(item['input'])})"
            complaints.append(f"`{key}`: {said}{got}")
    return "; ".join(complaints)


def shown(value: Any) -> str:
    """A value in a sentence, without the password of an address, cut where it is long."""
    try:
        text = repr(without_password(value) if isinstance(value, str) else value)
    except ValueError:  # Python writes no integer of more than 4,300 digits
        return "a number of thousands of digits"
    return text if len(text) <= LONGEST else f"{text[:LONGEST]}…"


def _suggest(root: type[BaseModel], location: tuple[str | int, ...]) -> str:
    """`, did you mean …?` when a declared key of the same section is spelt alike."""
    model: Any = root
    for part in location[:-1]:
        if isinstance(part, int):
            continue
        model = _section(model.model_fields[part].annotation)
        if model is None:
            return ""
    close = get_close_matches(str(location[-1]), model.model_fields, n=1)
    return f", did you mean `{close[0]}`?" if close else ""


def _section(annotation: Any) -> Any:
    """The Section class inside `X`, `list[X]` or `X | None`."""
    for candidate in (annotation, *get_args(annotation)):
        if isinstance(candidate, type) and issubclass(candidate, Section):
            return candidate
    return None
