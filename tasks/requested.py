"""A node of a workflow with what a recipe asks of the cluster for it.

Flyte 2 plans nothing: there a call of a task returns what the task has made, and the task asks for
what it was registered with.
"""

from __future__ import annotations

from typing import Any

from siqvl.recipe import Recipe
from siqvl.recipe.compute import Kind
from tasks.resources import asked, asked_to_plan


def requested(node: Any, kind: Kind, recipe: Recipe, *, plans: bool = False) -> Any:
    """Return a node, or the nodes of a map, that ask for what the recipe says of their kind.

    Args:
        plans: the node's task plans others, and is not tried again with all of them.
    """
    if not hasattr(node, "with_overrides"):
        return node
    return node.with_overrides(**(asked_to_plan(recipe) if plans else asked(kind, recipe)))
