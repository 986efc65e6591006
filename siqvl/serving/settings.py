"""What a registered model goes by; MLflow keeps it with the model as its `model_config`.

Who loads the model may set each of them anew:
`mlflow.pyfunc.load_model(uri, model_config={"allow_paths": True})`.
"""

from __future__ import annotations

from pydantic import PositiveInt

from siqvl.recipe import DataPrep, Recipe
from siqvl.recipe.section import Section


class ServingSettings(Section):
    """Limits of a request, and how it is answered."""

    max_new_tokens: PositiveInt
    batch_size: PositiveInt
    max_rows: PositiveInt
    max_image_pixels: PositiveInt
    max_characters: PositiveInt
    attention: str
    #: Whether a request may name pictures by path: over HTTP that would lead to the server's files.
    allow_paths: bool = False

    @classmethod
    def of(cls, recipe: Recipe) -> ServingSettings:
        """Reads those that a recipe asks for."""
        return cls(
            **recipe.serving.model_dump(),
            max_image_pixels=recipe.data.max_image_pixels,
            max_characters=recipe.data.max_characters,
            attention=recipe.model.attention,
        )

    @property
    def limits(self) -> DataPrep:
        """The limits of one row, as preparation knows them."""
        return DataPrep(max_image_pixels=self.max_image_pixels, max_characters=self.max_characters)
