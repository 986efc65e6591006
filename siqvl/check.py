"""Judge a whole recipe before anything starts: every source, benchmark and model part."""

from __future__ import annotations

from siqvl.data import sources
from siqvl.data.schema import RowKind
from siqvl.data.sources.reading.tabular import HUB_ID
from siqvl.errors import UserError
from siqvl.evaluation.benchmarks.prepare_benchmarks import check_benchmarks
from siqvl.recipe import Model, Recipe, Stage
from siqvl.recipe.reading.shipped import shipped
from siqvl.stages import STAGES


def check_recipe(recipe: Recipe) -> None:
    """Judges everything that can be told without loading weights or rows.

    Raises:
        UserError: one sentence about the first thing that is missing or contradictory.
    """
    check_model(recipe.model)
    for stage in recipe.trained:
        check_stage(recipe, stage)
    check_benchmarks(recipe)
    check_sampled(recipe)


def check_stage(recipe: Recipe, stage: Stage) -> None:
    """Judges whether the sources of one stage have the rows it reads; raises UserError."""
    for source in recipe.stage(stage).sources:
        sources.check(source, STAGES[stage].rows)


def check_sampled(recipe: Recipe) -> None:
    """Judges the questions that preference pairs are sampled about.

    Raises:
        UserError: their source is not as described, or a benchmark consists of pairs of which the
            recipe does not say how they are sampled.
    """
    sampled = recipe.stages.dpo.sampled
    for benchmark in recipe.evaluation.benchmarks:
        if not benchmark.sampled:
            continue
        if sampled is None:
            raise UserError(
                f"benchmark `{benchmark.name}` consists of sampled pairs, but `stages.dpo.sampled` "
                "does not say how they are sampled; fill that section in, or remove the benchmark"
            )
        sources.check(benchmark.source, RowKind.EVALUATION)
    if sampled is not None:
        sources.check(sampled.source, RowKind.EVALUATION)


def check_model(model: Model) -> None:
    """Judges whether local folders hold a config, and hub ids look like one; raises UserError."""
    for key, name in (("vision", model.vision), ("language", model.language)):
        folder = shipped(name)
        if folder.is_dir():
            if not (folder / "config.json").is_file():
                raise UserError(f"model.{key}: folder {name} has no config.json")
        elif not HUB_ID.fullmatch(name):
            raise UserError(
                f"model.{key}: {name} is neither a folder here nor a hub id like `owner/name`"
            )
