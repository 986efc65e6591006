"""Controls: a stage trained a second time without what it is said to be good for.

Each is a switch of that name in a recipe: in `evaluation` it has the control trained and scored, in
a gate it says that the control's score is meant, and in the section that is trained (`model`,
`stages.dpo`) it marks the control itself.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Any

from siqvl.recipe.training_stages import Stage


class Control(StrEnum):
    """A second training of one stage, to compare it with."""

    RANDOM_TOWER = "random_tower"  # stage 1 behind a tower of random weights
    LIKELIHOOD = "likelihood_control"  # stage 4 by the likelihood of chosen completions alone

    @property
    def stage(self) -> Stage:
        """The stage that it is a second training of."""
        return Stage.PROJECTOR_ALIGNMENT if self is Control.RANDOM_TOWER else Stage.DPO

    @property
    def words(self) -> str:
        """How it is told apart in tables: `random tower`."""
        return "random tower" if self is Control.RANDOM_TOWER else "likelihood alone"

    @property
    def phrase(self) -> str:
        """The same behind the name of a stage, in a sentence: `behind a random tower`."""
        return ("behind a " if self is Control.RANDOM_TOWER else "by ") + self.words


def control_of(about: Any) -> Control | None:
    """Return which control something with a switch for each is about; None: about none."""
    return next((one for one in Control if getattr(about, one.value)), None)
