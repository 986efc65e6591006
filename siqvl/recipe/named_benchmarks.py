"""Published benchmarks by name: what `benchmark: mmstar` in a recipe stands for."""

from __future__ import annotations

from difflib import get_close_matches
from functools import cache
from importlib.resources import files
from typing import Any

import yaml

from siqvl.recipe.reading.load import merged, shown


@cache
def benchmarks() -> dict[str, dict[str, Any]]:
    """Return the keys of every named benchmark."""
    text = files("siqvl.recipe").joinpath("named_benchmarks.yaml").read_text(encoding="utf-8")
    return yaml.safe_load(text)


def named(given: dict[str, Any]) -> dict[str, Any]:
    """Return the keys of a benchmark whose `benchmark` names a published one.

    Keys given beside it win, within `source` too; one of another `kind` is taken as it is given.

    Raises:
        ValueError: there is no such name.
    """
    changes = {key: value for key, value in given.items() if key != "benchmark"}
    name = given["benchmark"]
    if not isinstance(name, str) or name not in benchmarks():
        close = get_close_matches(str(name).lower(), benchmarks(), n=1)
        hint = f"did you mean `{close[0]}`?" if close else f"known are {', '.join(benchmarks())}"
        raise ValueError(f"no published benchmark is called {shown(name)}; {hint}")
    base: dict[str, Any] = {"name": name, **benchmarks()[name]}
    source = changes.get("source")
    if isinstance(source, dict) and source.get("kind") not in (None, base["source"]["kind"]):
        base = {key: value for key, value in base.items() if key != "source"}
    return merged(base, changes)
