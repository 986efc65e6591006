"""Our side: `train_stage` with a recipe, as a task calls it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from benchmarks.training.clock import Clock
from benchmarks.training.rows import make_sources, mean_length
from benchmarks.training.scenario import Scenario, recipe_for
from siqvl.recipe import Recipe


def ours_recipe(scenario: Scenario, settings: dict[str, Any], output: Path) -> Recipe:
    """The recipe of a variant.

    Args:
        settings: keys of the recipe's stage. Packed, `batch_size` becomes so many packs that they
            hold the scenario's rows a step on average.
    """
    changes = dict(settings)
    if changes.get("batching", scenario.size.batching) == "packed":
        length = scenario.size.pack_length
        packs = round(scenario.rows_per_step * mean_length(scenario) / length)
        changes = {"batch_size": max(1, packs), "pack_length": length} | changes
    return recipe_for(scenario, make_sources(scenario), changes, output)


def train_ours(scenario: Scenario, settings: dict[str, Any], output: Path, clock: Clock) -> None:
    """Train; the clock is told when the model is built, and times what is done once a row."""
    # what a run imports on its way is imported before, so that it counts as libraries
    from siqvl.training import stage_process as run
    from siqvl.training.preference import dpo
    from siqvl.training.stage import train_stage

    load = run._load_model

    def noted(*args: Any, **kwargs: Any) -> Any:
        clock.before_model()
        return load(*args, **kwargs)

    run._load_model = noted
    # what is done once for every row, so that it need not be done in every step
    run.tower_features = clock.once(run.tower_features)
    dpo.reference_log_probs = clock.once(dpo.reference_log_probs)
    train_stage(
        scenario.recipe_stage,
        ours_recipe(scenario, settings, output),
        data=scenario.data,
        checkpoint=scenario.parent,
        output=output / "checkpoint",
    )
