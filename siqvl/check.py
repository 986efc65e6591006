"""Judge a whole recipe before anything starts: every source, benchmark and model part."""

from __future__ import annotations

from pathlib import Path

from siqvl.data import sources
from siqvl.data.sources.reading.tabular import HUB_ID
from siqvl.errors import UserError
from siqvl.evaluation.benchmarks.prepare_benchmarks import check_benchmarks
from siqvl.preferences.feasible import check_sampled
from siqvl.recipe import Model, Recipe, Stage
from siqvl.stages import STAGES


def check_recipe(recipe: Recipe) -> None:
    """Everything that can be told without loading weights or rows.

    Raises:
        UserError: one sentence about the first thing that is missing or contradictory.
    """
    check_model(recipe.model)
    for stage in Stage:
        check_stage(recipe, stage)
    check_benchmarks(recipe)
    check_sampled(recipe)


def check_stage(recipe: Recipe, stage: Stage) -> None:
    """The sources of one stage have the rows it reads."""
    for source in recipe.stage(stage).sources:
        sources.check(source, STAGES[stage].rows)


def check_model(model: Model) -> None:
    """Local folders are there and hold a config; a hub id is only looked at."""
    for key, name in (("vision", model.vision), ("language", model.language)):
        folder = Path(name).expanduser()
        if folder.is_dir():
            if not (folder / "config.json").is_file():
                raise UserError(f"model.{key}: folder {name} has no config.json")
        elif not HUB_ID.fullmatch(name):
            raise UserError(
                f"model.{key}: {name} is neither a folder here nor a hub id like `owner/name`"
            )
