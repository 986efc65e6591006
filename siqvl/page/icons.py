"""Marks of an outcome; each stands beside a word, so that neither colour nor shape is needed."""

from __future__ import annotations

#: Drawn once in the page (page.html) and used by name.
_NAMES = {"good": "check", "bad": "cross", "part": "dash"}


def mark(outcome: str, text: str) -> str:
    """An icon and its word; `outcome` is good, bad or part."""
    return f'<span class="mark {outcome}">{icon(outcome)}{text}</span>'


def icon(outcome: str) -> str:
    """The icon alone, hidden from readers that read aloud."""
    return f'<svg class="icon" aria-hidden="true"><use href="#{_NAMES[outcome]}"/></svg>'
