"""Show a page of siqvl's in the Flyte console, beside the task that made it."""

from __future__ import annotations

from pathlib import Path

from flytekit import Deck

from siqvl.page.render import render


def show(title: str, page: Path) -> None:
    """Add an HTML page to the task's deck, in a frame of its own: its styles stay inside."""
    content = page.read_text(encoding="utf-8")
    Deck(title, render("page/frame.html.jinja", title=title, page=content))
