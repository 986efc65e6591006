"""A grid over hyperparameters of one stage: a recipe for every combination of the values."""

from __future__ import annotations

import re
from itertools import product
from typing import Any

from pydantic import Field

from siqvl.errors import UserError
from siqvl.recipe import Recipe, Stage
from siqvl.recipe.section import Section

MOST = 256  # points; more are a slip of the pen


class Grid(Section):
    """What to try, as in `{"values": {"learning_rate": [1e-5, 2e-5]}}`."""

    values: dict[str, list[Any]] = Field(
        min_length=1, description="key of the stage -> values; `seed` is one too"
    )


class Point(Section):
    """One combination of the values, as a recipe."""

    name: str
    recipe: Recipe

    @property
    def folder(self) -> str:
        """Return a name for its folder that no other point has, whatever the values are."""
        return f"{re.sub(r'[^A-Za-z0-9_.=,+-]+', '_', self.name)[:80]}-{self.recipe.hash()[:8]}"


def points(recipe: Recipe, stage: Stage, grid: Grid) -> list[Point]:
    """Return the recipes of a grid, in the order of its keys and values.

    Raises:
        UserError: an unknown key, a value that its key does not take, or a grid too large.
    """
    keys = list(grid.values)
    for key, values in grid.values.items():
        if not values:
            raise UserError(f"grid: `{key}` has no values to try")
        if len(set(map(repr, values))) < len(values):
            raise UserError(f"grid: `{key}` names a value twice: {values}")
    for change in recipe.changes:
        if (key := change.partition("=")[0].removeprefix(f"stages.{stage}.")) in keys:
            raise UserError(f"grid: `{key}` is tried, and set by --set {change}; leave one out")
    if {"max_steps", "epochs"} <= grid.values.keys():
        raise UserError("grid: `max_steps` and `epochs` exclude each other; try one of them")
    combinations = list(product(*grid.values.values()))
    if len(combinations) > MOST:
        raise UserError(f"grid: {len(combinations)} combinations, more than {MOST}; try fewer")
    return [_point(recipe, stage, dict(zip(keys, each, strict=True))) for each in combinations]


def _point(recipe: Recipe, stage: Stage, changes: dict[str, Any]) -> Point:
    content = recipe.model_dump(mode="json")
    figures = content["stages"][stage.value]
    for key, value in changes.items():
        (content if key == "seed" else figures)[key] = value
    if "max_steps" in changes:
        figures["epochs"] = None
    elif "epochs" in changes:
        figures["max_steps"] = None
    name = ", ".join(f"{key}={value}" for key, value in changes.items())
    try:
        return Point(name=name, recipe=Recipe.model_validate(content))
    except UserError as error:
        raise UserError(f"grid ({name}): {error.message}") from None
