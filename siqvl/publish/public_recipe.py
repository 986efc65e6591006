"""A checkpoint's card as others may read it: its recipe without what is of one machine."""

from __future__ import annotations

import re
from pathlib import PurePosixPath, PureWindowsPath
from typing import Any

from siqvl.checkpoint import CheckpointCard
from siqvl.recipe.reading.changes import NOTE

#: Keys of a recipe that name places of who trained, and nothing that a result depends on.
PRIVATE = (
    ("features_dir",),
    ("tracking", "uri"),
    ("tracking", "spool"),
    ("distributed", "shared_dir"),
)
LOCAL = re.compile(r"^(?:file:/|/|~|[A-Za-z]:[\\/]|\\\\)")


def is_local(text: str) -> bool:
    """Whether a text is a path that means something on one machine alone."""
    return bool(LOCAL.match(text)) and "\n" not in text


def public_card(card: CheckpointCard) -> CheckpointCard:
    """Return a card whose recipe names no path, store or folder of the machine that trained.

    Of an absolute path its last part stays: a data set has a name. Hashes stay as they were; that
    of the recipe is of the recipe as it was.
    """
    recipe = _without_places(card.recipe)
    recipe.pop(NOTE, None)  # repeats as texts what the keys themselves hold, places among it
    for *sections, key in PRIVATE:
        section: Any = recipe
        for name in sections:
            section = section.get(name) if isinstance(section, dict) else None
        if isinstance(section, dict) and key in section:
            section[key] = None
    return card.model_copy(update={"recipe": recipe})


def _without_places(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _without_places(one) for key, one in value.items()}
    if isinstance(value, list):
        return [_without_places(one) for one in value]
    return last_part(value) if isinstance(value, str) and is_local(value) else value


def last_part(path: str) -> str:
    """Return the name at the end of a path of either kind: `/data/cats` -> `cats`."""
    kind = PureWindowsPath if "\\" in path else PurePosixPath
    return kind(path).name or "local"
