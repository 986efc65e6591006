"""The recipe of a command line: `--recipe`, a file or JSON, with the changes of `--set`."""

from __future__ import annotations

import re
import sys
from collections.abc import Sequence
from itertools import pairwise

from siqvl.recipe import Recipe
from siqvl.recipe.reading.document import parse_json


def given_recipe(recipe: str, changes: Sequence[str] = ()) -> Recipe:
    """Return a recipe as it stands behind `--recipe`, changed.

    Raises:
        UserError: it is none, or a change is none of it.
    """
    if recipe.lstrip().startswith("{"):
        return Recipe.model_validate(parse_json(recipe, "--recipe")).changed(changes)
    return Recipe.load(recipe, changes)


def typed(option: str) -> list[str]:
    """Return what stands behind an option on this process's command line, each time it does."""
    words = [part for word in sys.argv for part in re.split(rf"(?<=^{option})=", word)]
    return [value for word, value in pairwise(words) if word == option]
