"""The whole pipeline by the clock.

SIQVL_RECIPE=recipes/qwen2.5-0.5b.yaml \
    pyflyte -c flyte.config register --copy all --activate-launchplans workflows

Recipe and time (`compute.schedule`) are those of SIQVL_RECIPE when the plan is registered. Steps
whose inputs are as they were come from Flyte's cache.
"""

from __future__ import annotations

from flytekit import CronSchedule, LaunchPlan

from tasks.resources import registered_recipe
from workflows.full_pipeline import full_pipeline

RECIPE = registered_recipe()

scheduled = LaunchPlan.get_or_create(
    full_pipeline,
    name="scheduled",
    default_inputs={"recipe": RECIPE},
    schedule=CronSchedule(schedule=RECIPE.compute.schedule),
)
