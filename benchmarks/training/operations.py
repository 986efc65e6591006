"""Operations a second that the model needs, of what the device can do: model FLOPs utilisation."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from benchmarks.training.ours import ours_recipe
from benchmarks.training.rows import sizes_of
from benchmarks.training.scenario import Scenario
from siqvl.adapters.attach import attach
from siqvl.device import resolve_precision
from siqvl.model.assemble import build_on_meta
from siqvl.training.figures.flops import TrainingFlops
from siqvl.training.figures.peak_flops import peak_flops
from siqvl.training.figures.work import Work

if TYPE_CHECKING:
    from siqvl.model.configuration import SiQVLConfig


def operations_per_row(
    scenario: Scenario, side: str, settings: dict[str, Any], config: SiQVLConfig
) -> float:
    """What a row needs the way a side trains on it, as `siqvl.training.figures.flops` counts.

    Ours without the tower where its features are cached, and with a pair's prompt once where it is
    shared; TRL's with both, but without its reference, which trains nothing.
    """
    recipe = ours_recipe(scenario, settings if side == "ours" else {}, scenario.work)
    stage = recipe.stage(scenario.recipe_stage)
    cached = side == "ours" and stage.cached_features
    shared = side == "ours" and getattr(stage, "shared_prompt", False)
    sizes = sizes_of(scenario)["shared" if shared else "apart"]
    adapters = attach(build_on_meta(config), stage.adapter) if stage.adapter else 0
    flops = TrainingFlops(config, stage.trainable, cached_features=cached, adapter_weights=adapters)
    return float(flops.of(Work(**sizes)))


def device_peak(scenario: Scenario) -> float | None:
    """Operations a second of this device at the scenario's precision; None where unknown."""
    recipe = ours_recipe(scenario, {}, scenario.work)
    return peak_flops(recipe, resolve_precision(scenario.precision))
