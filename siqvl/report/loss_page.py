"""`loss.html`: the loss curve of one checkpoint's training, in a file that needs no other."""

from __future__ import annotations

from pathlib import Path

from siqvl.checkpoint import read_card, read_history
from siqvl.page.render import render
from siqvl.report.curves import loss_curve
from siqvl.stages import STAGES
from siqvl.tracking.runs import RunLog

LOSS_PAGE = "loss.html"


def keep_loss_page(log: RunLog, checkpoint: Path) -> None:
    """Keep the page among the artifacts of the checkpoint's run, where MLflow shows it."""
    log.text(loss_page(checkpoint), LOSS_PAGE)


def loss_page(checkpoint: Path) -> str:
    """The text of the page; the curve is drawn as on the page that a pipeline ends with.

    Raises:
        UserError: there is no checkpoint, or its history is damaged.
    """
    card = read_card(checkpoint)
    return render(
        "report/loss_page.html.jinja",
        recipe=card.recipe_name,
        title=STAGES[card.stage].title,
        curve=loss_curve(card, read_history(checkpoint)),
    )
