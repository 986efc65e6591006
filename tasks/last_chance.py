"""An attempt that may be the last one says so, and which failures would end its task.

Flyte counts two kinds of failure. Pods that are lost (killed, drained, gone with their node) are
made up for as often as the cluster says, whatever `retries` is; what the task itself brings about
(it ran out of memory, a worker of several was lost) counts against `retries`. A pod knows how many
attempts there were before it, and not why they ended.
"""

from __future__ import annotations

import logging
import os

from siqvl.recipe import Recipe
from siqvl.recipe.compute import Kind
from tasks.contracts import on_cluster
from tasks.flyte_tags import KIND

logger = logging.getLogger(__name__)

_said: list[str] = []  # once a process


def say_last_chance(recipe: Recipe) -> None:
    """Log that this attempt may be the last one, where it may; nothing outside of a cluster."""
    kind, number = kind_of_pod(), os.environ.get("FLYTE_ATTEMPT_NUMBER", "0")
    if kind is None or not number.isdecimal():
        return
    found = last_chance(int(number), kind, recipe)
    if found is not None and found not in _said:
        _said.append(found)
        logger.warning("%s", found)


def kind_of_pod() -> Kind | None:
    """Return which of the recipe's requests the task of this pod has; None outside of a cluster."""
    kind = os.environ.get(KIND, "")
    return Kind(kind) if on_cluster() and kind in list(Kind) else None


def last_chance(number: int, kind: Kind, recipe: Recipe) -> str | None:
    """Return what ends the task after this attempt, None where nothing can.

    Args:
        number: of the attempt, from 0.
    """
    lost, retries = recipe.compute.system_retries, recipe.compute.of(kind).retries
    key = f"compute.{kind}.retries is {retries}"
    begin = f"attempt {number + 1} of this task"
    if lost is None:
        ends = number >= max(retries, 1)
        return f"{begin} is its last chance, whatever ends it: {key}" if ends else None
    if number == 0:
        return None
    before = f"if the {number} before it" if number > 1 else "if the one before it"
    lost_too = (
        f"{before} lost {'their pods' if number > 1 else 'its pod'}, a lost pod ends the task"
    )
    own = f"{before} ran out of memory or lost a worker, that ends it"
    keys = f"compute.system_retries is {lost}, {key}"
    if number >= lost + retries:
        return f"{begin} is its last chance, whatever ends it: {keys}"
    chances = [*([lost_too] if number >= lost else []), *([own] if number >= retries else [])]
    return f"{begin} may be its last chance: {'; '.join(chances)} ({keys})" if chances else None
