"""The whole pipeline by the clock.

SIQVL_RECIPE=recipes/qwen2.5-0.5b.yaml \
    pyflyte -c flyte.config register --copy all --activate-launchplans workflows

Recipe, time (`compute.schedule`) and who hears of its end (`compute.notify`) are those of
SIQVL_RECIPE when the plan is registered. Steps whose inputs are as they were come from Flyte's
cache.
"""

from __future__ import annotations

from flytekit import CronSchedule, Email, LaunchPlan, PagerDuty, Slack
from flytekit.core.notification import Notification
from flytekit.models.core.execution import WorkflowExecutionPhase

from siqvl.errors import UserError, one_line
from siqvl.recipe.cluster.notify import Notify
from tasks.resources import registered_recipe
from workflows.full_pipeline import full_pipeline

RECIPE = registered_recipe()


def _cron(expression: str) -> CronSchedule:
    """The schedule.

    Raises:
        UserError: it is no cron expression.
    """
    try:
        return CronSchedule(schedule=expression)
    except ValueError as error:
        raise UserError(f"recipe: `compute.schedule`: {one_line(error)}") from None


def _notifications(notify: Notify) -> list[Notification]:
    """One of each kind that has addresses."""
    phases = [getattr(WorkflowExecutionPhase, phase.upper()) for phase in notify.phases]
    kinds = ((Email, notify.email), (Slack, notify.slack), (PagerDuty, notify.pagerduty))
    return [kind(phases, addresses) for kind, addresses in kinds if addresses]


scheduled = LaunchPlan.get_or_create(
    full_pipeline,
    name="scheduled",
    default_inputs={"recipe": RECIPE},
    schedule=_cron(RECIPE.compute.schedule),
    notifications=_notifications(RECIPE.compute.notify),
)


def __dir__() -> list[str]:
    """What there is to run: `pyflyte run workflows/scheduled.py` lists it."""
    return ["scheduled"]
