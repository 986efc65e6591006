"""What differs between two runs beside their scores: keys of the recipe, code, data, weights."""

from __future__ import annotations

import re

from siqvl.comparison.side import Side
from siqvl.text_table import text_table

WIDTH = 48  # of a value
CONTEXT = 12  # characters shown before the first that differs
ABSENT = "–"
SHOWN_HASH = 12
_HASH = re.compile(r"[0-9a-f]{32,}")


def recipe_table(a: Side, b: Side) -> str:
    """Return a table of the keys whose values differ, by their dotted names."""
    if not a.recipe or not b.recipe:
        missing = " and ".join(name for name, side in (("A", a), ("B", b)) if not side.recipe)
        return f"No recipe was logged with {missing}."
    rows = differing(a.recipe, b.recipe)
    if not rows:
        return "Their recipes are equal."
    return "\n".join(text_table([("recipe", "A", "B"), *rows], left=(0, 1, 2)))


def facts_table(a: Side, b: Side) -> str:
    """Return a table of code, data and weights that differ; of benchmarks, those of both."""
    alone = {key for key in a.facts.keys() ^ b.facts.keys() if key.startswith("benchmark ")}
    facts = ({k: v for k, v in side.facts.items() if k not in alone} for side in (a, b))
    rows = differing(*facts)
    if not rows:
        return "Code, data and checkpoints are equal."
    return "\n".join(text_table([("also different", "A", "B"), *rows], left=(0, 1, 2)))


def differing(a: dict[str, str], b: dict[str, str]) -> list[tuple[str, str, str]]:
    """Return the rows of a table: name, value of A and of B, of all names whose values differ."""
    names = [*a, *(name for name in b if name not in a)]
    return [
        (name, *_cut(a.get(name, ABSENT), b.get(name, ABSENT)))
        for name in names
        if a.get(name) != b.get(name)
    ]


def _cut(a: str, b: str) -> tuple[str, str]:
    """Both no wider than WIDTH, and where they are longer, from about where they differ."""
    if all(_HASH.fullmatch(value) or value == ABSENT for value in (a, b)):
        return a[:SHOWN_HASH], b[:SHOWN_HASH]
    if max(len(a), len(b)) <= WIDTH:
        return a, b
    same = next((i for i, (x, y) in enumerate(zip(a, b, strict=False)) if x != y), len(min(a, b)))
    start = max(0, same - CONTEXT)
    return _from(a, start), _from(b, start)


def _from(value: str, start: int) -> str:
    shown = ("…" if start else "") + value[start:]
    return shown if len(shown) <= WIDTH else shown[: WIDTH - 1] + "…"
