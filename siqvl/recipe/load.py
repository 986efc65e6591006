"""Reading of a recipe file over its base, and one line that says what is wrong with it."""

from __future__ import annotations

from difflib import get_close_matches
from pathlib import Path
from typing import Any, get_args

import yaml
from pydantic import BaseModel, ValidationError

from siqvl.errors import UserError, one_line
from siqvl.recipe.section import Section


def read_yaml(path: Path) -> dict[str, Any]:
    """Return the mapping that a recipe file holds.

    Raises:
        UserError: it is missing, or no YAML mapping.
    """
    if not path.is_file():
        raise UserError(f"recipe file {path} does not exist; the shipped ones are in recipes/")
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise UserError(f"{path} is not valid YAML: {one_line(error)}") from None
    if not isinstance(content, dict):
        raise UserError(f"{path} holds no recipe: expected `key: value` lines at its top level")
    return content


def with_base(content: dict[str, Any], seen: tuple[str, ...] = ()) -> dict[str, Any]:
    """Return a recipe's whole content: one with `base: <file>` holds only what differs from it.

    Sections are merged key by key; lists, sources among them, are replaced whole.

    Raises:
        UserError: the base is missing, or bases go round in a circle.
    """
    if "base" not in content:
        return content
    changes = {key: value for key, value in content.items() if key != "base"}
    base = str(content["base"])
    if base in seen:
        raise UserError(f"base {base} is based on itself: {' -> '.join((*seen, base))}")
    return _merged(with_base(read_yaml(Path(base)), (*seen, base)), changes)


def _merged(base: dict[str, Any], changes: dict[str, Any]) -> dict[str, Any]:
    both = {key for key in base.keys() & changes.keys() if isinstance(changes[key], dict)}
    deeper = {key: _merged(base[key], changes[key]) for key in both if isinstance(base[key], dict)}
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
            got = "" if isinstance(item["input"], dict) else f" (got {item['input']!r})"
            complaints.append(f"`{key}`: {said}{got}")
    return "; ".join(complaints)


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
