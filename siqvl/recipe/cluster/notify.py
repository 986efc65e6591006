"""The section `compute.notify`: who hears how a scheduled pipeline has ended."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated

from pydantic import Field, StringConstraints

from siqvl.recipe.section import Section


class Ending(StrEnum):
    """How an execution may end, as Flyte says it; it tells nothing of what goes on."""

    # Names are values, as those of the stages are.
    succeeded = "succeeded"
    failed = "failed"
    timed_out = "timed_out"
    aborted = "aborted"


#: Slack and PagerDuty have addresses, too: Flyte sends nothing but e-mail.
Address = Annotated[str, StringConstraints(pattern=r"^[^@\s,;]+@[^@\s,;]+\.[^@\s,;.]+$")]


class Notify(Section):
    """E-mail of FlyteAdmin at the end of each execution of the launch plan `scheduled`."""

    email: list[Address] = Field([], description="addresses of people")
    slack: list[Address] = Field([], description="e-mail addresses of Slack channels")
    pagerduty: list[Address] = Field([], description="e-mail addresses of PagerDuty services")
    phases: list[Ending] = Field(
        [Ending.failed, Ending.timed_out, Ending.aborted],
        min_length=1,
        description="the ends that are told: succeeded, failed, timed_out, aborted",
    )
