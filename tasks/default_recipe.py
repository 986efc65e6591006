"""The recipe of a task that is called without one: `recipes/tiny.yaml`, as of most."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from pydantic import PrivateAttr

from siqvl.recipe import Recipe

ROOT = Path(__file__).resolve().parent.parent


class _DefaultRecipe(Recipe):
    _file: Path = PrivateAttr()

    def model_dump_json(self, **options: Any) -> str:
        """The recipe's file, which `pyflyte` reads as it does that of `--recipe`.

        `--help` prints what this returns; the whole recipe would fill 300 lines.
        """
        return os.path.relpath(self._file)


def default_recipe(name: str) -> Recipe:
    """Return a recipe of the folder `recipes` as a task's default."""
    file = ROOT / "recipes" / name
    recipe = _DefaultRecipe.load(file)
    assert isinstance(recipe, _DefaultRecipe)
    recipe._file = file
    return recipe


TINY: Recipe = default_recipe("tiny.yaml")
