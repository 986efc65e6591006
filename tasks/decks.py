"""Show a page of siqvl's in the Flyte console, beside the task that made it."""

from __future__ import annotations

import html
from pathlib import Path

from flytekit import Deck


def show(title: str, page: Path) -> None:
    """Add an HTML page to the task's deck, in a frame of its own: its styles stay inside."""
    content = html.escape(page.read_text(encoding="utf-8"))
    style = "width: 100%; height: 90vh; border: 0"
    Deck(
        title, f'<iframe title="{html.escape(title)}" style="{style}" srcdoc="{content}"></iframe>'
    )
