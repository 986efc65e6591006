"""The recipe of a task that is given none."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from siqvl.recipe import Recipe

ROOT = Path(__file__).resolve().parent.parent
NAME = "recipes/tiny.yaml"


class _Named(str):
    """JSON whose file is shown in its place: `--help` prints defaults, this one in 300 lines."""

    def __str__(self) -> str:
        return NAME


class _DefaultRecipe(Recipe):
    def model_dump_json(self, **options: Any) -> str:
        return _Named(super().model_dump_json(**options))


TINY: Recipe = _DefaultRecipe.load(ROOT / NAME)
