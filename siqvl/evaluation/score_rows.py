"""A line of a score table or a bar of a chart: a model beside players that do not see the picture.

`score_rows.html.jinja` draws it, for the page of one checkpoint and for that of a pipeline.
"""

from __future__ import annotations

from dataclasses import dataclass

from siqvl.evaluation.gates.verdict import PLAYERS
from siqvl.evaluation.scoring.scores import OTHERS, Result
from siqvl.number_formats import percent
from siqvl.recipe import Player


@dataclass(frozen=True)
class ScoreRow:
    """Results of all who answered the same questions."""

    name: str  # of the questions, or of the model
    questions: int
    players: dict[Player, Result]
    control: bool = False  # whether the model is a control
    figures: str = ""  # what is published beside the mean

    @property
    def own(self) -> Result:
        """The model's result with the picture."""
        return self.players["picture"]

    @property
    def others(self) -> list[float | None]:
        """Mean scores of the other players, in the order of `OTHERS`; None: it cannot play."""
        return [self.players[name].mean if name in self.players else None for name in OTHERS]

    @property
    def best_other(self) -> tuple[Player, float] | None:
        """Who has the highest score to be had without looking, and that score."""
        others = [(name, self.players[name].mean) for name in OTHERS if name in self.players]
        return max(others, key=lambda other: other[1], default=None)

    @property
    def floor(self) -> float | None:
        """The highest score to be had without looking."""
        return self.best_other[1] if self.best_other else None

    @property
    def label(self) -> str:
        """The row in words, for those who do not see its bar."""
        low, high = self.own.interval
        label = f"{percent(self.own.mean)}, 95 % interval {percent(low)} to {percent(high)}"
        if self.best_other:
            player, share = self.best_other
            label += f"; best without looking {percent(share)} ({PLAYERS[player]})"
        return label
