"""How Flyte sees a recipe: a structure by name, without the schema of its sections.

flytekit writes the whole schema of a pydantic model (160 kB for a recipe) into each input and
output of that type. The pipeline has thirty of them: its plan would be past the 2 MB that
FlytePropeller reads by default (`storage.limits.maxDownloadMBs`), and `--help` a thousand lines
long. A recipe is judged by `siqvl.recipe` as it is read, not by Flyte.
"""

from __future__ import annotations

from typing import Any

import msgpack
from flytekit import FlyteContext
from flytekit.core.constants import CACHE_KEY_METADATA, MESSAGEPACK, SERIALIZATION_FORMAT
from flytekit.core.type_engine import TypeEngine, TypeTransformer
from flytekit.extras.pydantic_transformer.transformer import PydanticTransformer
from flytekit.models.annotation import TypeAnnotation
from flytekit.models.literals import Binary, Literal, Scalar
from flytekit.models.types import LiteralType, SimpleType

from siqvl.recipe import Recipe

NAME = {"title": "Recipe", "type": "object", "description": "a YAML or JSON file"}


class RecipeTransformer(PydanticTransformer):
    """flytekit's own for pydantic models, but for the literal type and the default recipe."""

    def __init__(self) -> None:
        TypeTransformer.__init__(self, "recipe", Recipe, enable_type_assertions=False)

    def get_literal_type(self, t: type[Recipe]) -> LiteralType:
        return LiteralType(
            simple=SimpleType.STRUCT,
            metadata=NAME,
            annotation=TypeAnnotation({CACHE_KEY_METADATA: {SERIALIZATION_FORMAT: MESSAGEPACK}}),
        )

    def to_literal(
        self, ctx: FlyteContext, python_val: Recipe, python_type: Any, expected: LiteralType
    ) -> Literal:
        content = msgpack.dumps(python_val.model_dump(mode="json"))
        return Literal(scalar=Scalar(binary=Binary(value=content, tag=MESSAGEPACK)))

    def guess_python_type(self, literal_type: LiteralType) -> type[Recipe]:
        """Of a task fetched from a cluster."""
        if literal_type.simple == SimpleType.STRUCT and literal_type.metadata == NAME:
            return Recipe
        raise ValueError(f"{literal_type} is not a recipe")


TypeEngine.register(RecipeTransformer())
