"""The recipe of a task that is called without one: `recipes/tiny.yaml`."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from siqvl.recipe import Recipe

ROOT = Path(__file__).resolve().parent.parent
FILE = ROOT / "recipes" / "tiny.yaml"


class _DefaultRecipe(Recipe):
    def model_dump_json(self, **options: Any) -> str:
        """The recipe's file, which `pyflyte` reads as it does that of `--recipe`.

        `--help` prints what this returns; the whole recipe would fill 300 lines.
        """
        return os.path.relpath(FILE)


TINY: Recipe = _DefaultRecipe.load(FILE)
