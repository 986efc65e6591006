"""What a registered model goes by; MLflow keeps it with the model as its `model_config`.

Who loads the model may set each of them anew:
`mlflow.pyfunc.load_model(uri, model_config={"allow_paths": True})`.
"""

from __future__ import annotations

from typing import Any, Literal

from pydantic import PositiveInt, ValidationError

from siqvl.errors import UserError
from siqvl.recipe import DataPrep, Model, Recipe, Serving, explain
from siqvl.recipe.section import Section

#: Sections of a recipe, and their keys that serving goes by.
SAID_IN: tuple[tuple[str, type[Section], tuple[str, ...]], ...] = (
    (
        "serving",
        Serving,
        ("max_new_tokens", "batch_size", "max_rows", "max_request_pixels", "precision"),
    ),
    ("data", DataPrep, ("max_image_pixels", "max_characters")),
    ("model", Model, ("attention",)),
)


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
    #: What came after version 0.1.0 has defaults: models of before were registered without.
    max_request_pixels: PositiveInt = Serving.model_fields["max_request_pixels"].default
    precision: Literal["auto", "fp32", "bf16"] = "fp32"

    @classmethod
    def of(cls, recipe: Recipe | dict[str, Any]) -> ServingSettings:
        """Reads those that a recipe asks for, whatever else is in it.

        What it does not say is as where a recipe of today leaves it out.

        Args:
            recipe: one of today, or the JSON of a card's, which may have other keys.

        Raises:
            UserError: a value that is none.
        """
        content = recipe.model_dump() if isinstance(recipe, Recipe) else recipe
        values: dict[str, Any] = {}
        for name, section, keys in SAID_IN:
            said = content.get(name)
            defaults = {key: section.model_fields[key].default for key in keys}
            known = said if isinstance(said, dict) else {}
            values |= {key: known.get(key, default) for key, default in defaults.items()}
        try:
            return cls(**values)
        except ValidationError as error:
            raise UserError(f"recipe: serving: {explain(error, cls)}") from None

    @property
    def limits(self) -> DataPrep:
        """The limits of one row, as preparation knows them."""
        return DataPrep(max_image_pixels=self.max_image_pixels, max_characters=self.max_characters)
