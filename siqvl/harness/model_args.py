"""`--model_args` of a harness, typed."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, PositiveInt, ValidationError

from siqvl.errors import UserError
from siqvl.recipe import explain

#: lmms-eval reads whatever looks like a number as one, names of folders too.
Text = Annotated[str, BeforeValidator(str)]


class ModelArgs(BaseModel):
    """How a checkpoint answers what a harness asks."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    pretrained: Text = Field(description="the directory of a checkpoint")
    attention: Literal["sdpa", "eager"] = "sdpa"
    max_new_tokens: PositiveInt = Field(1024, description="of a task that names none")
    seed: int = Field(0, description="of answers that are drawn at random")
    batch_size: PositiveInt = 1
    device: Text | None = Field(None, description="the fastest of this machine, where it is None")


def read_model_args(values: Mapping[str, Any]) -> ModelArgs:
    """Reads what a harness hands over.

    Raises:
        UserError: a key that is missing, unknown or of another type; it is named.
    """
    try:
        return ModelArgs.model_validate(values)
    except ValidationError as error:
        raise UserError(f"model_args: {explain(error, ModelArgs)}") from None
