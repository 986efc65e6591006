"""One page to look at sampled pairs: how often the model was right, and a few pairs."""

from __future__ import annotations

import json

from siqvl.data.schema import Row
from siqvl.page.render import render
from siqvl.preferences.statistics import Sampling

PAGE = "sampling.html"
EXAMPLES = 12


def render_page(title: str, sampling: Sampling, examples: list[Row]) -> str:
    """The text of the page.

    Args:
        examples: stored preference rows, as `siqvl.data.preparation.data_page.example` gives them.
    """
    return render(
        "preferences/pairs_page.html.jinja",
        title=title,
        sampling=sampling,
        examples=[(row, _texts(row)) for row in examples],
    )


def _texts(row: Row) -> list[tuple[str, ...]]:
    """What was asked, what is right, and what the model wrote: the good and the bad."""
    about = json.loads(row["meta"])
    rejected = "rejected" if about["rejected_ended"] else "rejected, cut off"
    return [
        ("question", row["prompt"][-1]["content"]),
        ("accepted answers", " | ".join(about["answers"])),
        ("chosen", row["chosen"][-1]["content"], "good"),
        (rejected, row["rejected"][-1]["content"], "bad"),
    ]
