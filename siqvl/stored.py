"""What artifacts say of themselves in JSON: models that refuse unknown keys, and their reader."""

from __future__ import annotations

from pathlib import Path
from typing import Any, TypeVar, get_args

from pydantic import BaseModel, ConfigDict, TypeAdapter, ValidationError

from siqvl.errors import UserError
from siqvl.files import atomic_file
from siqvl.recipe import explain

Content = TypeVar("Content")


class Stored(BaseModel):
    """What a file holds, or a part of it; unknown keys are refused, values do not change."""

    model_config = ConfigDict(extra="forbid", frozen=True)


def read_stored(path: Path, kind: type[Content], missing: str) -> Content:
    """Reads a JSON file that holds a model, or a list of them.

    Args:
        kind: a class like `Scores`, or `list[Verdict]`.
        missing: what to say where there is no such file.

    Raises:
        UserError: there is none, or it is damaged.
    """
    if not path.is_file():
        raise UserError(missing)
    try:
        return TypeAdapter(kind).validate_json(path.read_text(encoding="utf-8"))
    except ValidationError as error:
        root: Any = next(iter(get_args(kind)), kind)
        reason = explain(error, root)
    except UserError as error:  # it says itself what is wrong
        raise UserError(f"{path}: {error.message}") from None
    except UnicodeDecodeError as error:
        reason = f"it is not UTF-8 text (from byte {error.start})"
    raise UserError(f"{path} is damaged: {reason}")


def stored_if_sound(path: Path, kind: type[Content]) -> Content | None:
    """Reads a JSON file as `read_stored` does; None where there is none, or a damaged one."""
    try:
        return read_stored(path, kind, "")
    except UserError:
        return None


def write_stored(path: Path, content: Stored) -> None:
    """Writes a JSON file, whole or not at all, and its folder."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with atomic_file(path) as partial:
        partial.write_text(content.model_dump_json(indent=1) + "\n", encoding="utf-8")
