"""The recipes that come with SiQ-VL, and the small weights beside them, wherever one is.

In a checkout they are in `recipes/`, from where paths in them count. An installed siqvl has a copy
of that folder inside itself.
"""

from __future__ import annotations

from pathlib import Path

from siqvl.files import expanded

NAME = "recipes"
#: Of an installed siqvl, and of a checkout.
FOLDERS = tuple(folder / NAME for folder in Path(__file__).resolve().parents[2:4])


def shipped(path: str | Path) -> Path:
    """Returns a path as the user means it: `recipes/…`, where there is no such here, is a shipped
    recipe, or one of its files."""
    here = expanded(path)
    if here.parts[:1] != (NAME,) or here.exists():
        return here
    places = (folder.joinpath(*here.parts[1:]) for folder in FOLDERS)
    return next((place for place in places if place.exists()), here)
