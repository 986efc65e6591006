"""How Flyte sees a recipe: as any pydantic model, worked out once and not for each task anew.

Thirty inputs and outputs are recipes. flytekit walks through all of their sections for each of
them, which took half of `pyflyte run … --help`.
"""

from __future__ import annotations

from flytekit.core.type_engine import TypeEngine, TypeTransformer
from flytekit.extras.pydantic_transformer.transformer import PydanticTransformer
from flytekit.models.types import LiteralType

from siqvl.recipe import Recipe


class RecipeTransformer(PydanticTransformer):
    """flytekit's own, with a memory."""

    def __init__(self) -> None:
        TypeTransformer.__init__(self, "recipe", Recipe, enable_type_assertions=False)
        self._literal_type: LiteralType | None = None

    def get_literal_type(self, t: type[Recipe]) -> LiteralType:
        if self._literal_type is None:
            self._literal_type = super().get_literal_type(t)
        return self._literal_type


TypeEngine.register(RecipeTransformer())
