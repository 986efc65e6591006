"""The page of one stage's training: `loss.html` of a checkpoint, and live while it is trained.

It is one file that needs no other.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from siqvl.checkpoint import Logged, read_card, read_history
from siqvl.page.render import render
from siqvl.recipe import Stage
from siqvl.report.curves import figure_curves, loss_curve
from siqvl.stages import STAGES
from siqvl.tracking.runs import RunLog

LOSS_PAGE = "loss.html"


class Shown(NamedTuple):
    """A row that the model in training has answered, as the page shows it."""

    id: str
    pictures: list[str]  # addresses that an `img` takes
    question: str
    gold: str
    answer: str


def keep_loss_page(log: RunLog, checkpoint: Path) -> None:
    """Keep the page among the artifacts of the checkpoint's run, where MLflow shows it."""
    log.text(loss_page(checkpoint), LOSS_PAGE)


def loss_page(checkpoint: Path) -> str:
    """The text of the page; the curve is drawn as on the page that a pipeline ends with.

    Raises:
        UserError: there is no checkpoint, or its history is damaged.
    """
    card = read_card(checkpoint)
    seconds = card.metrics.get("train_runtime")
    return training_page(card.recipe_name, card.stage, read_history(checkpoint), seconds)


def training_page(
    recipe: str,
    stage: Stage,
    history: Sequence[Logged],
    seconds: float | None = None,
    *,
    progress: str = "",
    samples: Sequence[Shown] = (),
    asked_at: int = 0,
) -> str:
    """The text of the page of a training that ends, or goes on.

    Args:
        recipe: its name.
        history: what was logged so far, as a checkpoint keeps it.
        seconds: that the steps took.
        progress: how far it is, in words.
        samples: what the model answers.
        asked_at: optimizer steps after which it was asked.
    """
    return render(
        "report/loss_page.html.jinja",
        recipe=recipe,
        title=STAGES[stage].title,
        curve=loss_curve(stage, history, seconds),
        figures=figure_curves(history),
        progress=progress,
        samples=samples,
        asked_at=asked_at,
    )
