"""`loss.html`: the loss curve of one checkpoint's training, in a file that needs no other."""

from __future__ import annotations

import tempfile
from html import escape
from importlib.resources import files
from pathlib import Path
from string import Template

from siqvl.checkpoint import read_card, read_history
from siqvl.report.curves import loss_curve
from siqvl.stages import STAGES
from siqvl.tracking.runs import RunLog

LOSS_PAGE = "loss.html"


def keep_loss_page(log: RunLog, checkpoint: Path) -> None:
    """Keep the page among the artifacts of the checkpoint's run, where MLflow shows it."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / LOSS_PAGE
        path.write_text(loss_page(checkpoint), encoding="utf-8")
        log.artifact(path)


def loss_page(checkpoint: Path) -> str:
    """It looks as its figure does on the page that a pipeline ends with.

    Raises:
        UserError: there is no checkpoint, or its history is damaged.
    """
    card = read_card(checkpoint)
    page = files("siqvl.report").joinpath("page.html").read_text(encoding="utf-8")
    head = Template(page.partition("<body>")[0])
    title = escape(f"{card.recipe.name}, {STAGES[card.stage].title}")
    figure = loss_curve(card, read_history(checkpoint))
    return f"{head.substitute(title=title)}<body><main>{figure}</main></body></html>\n"
