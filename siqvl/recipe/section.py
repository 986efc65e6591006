"""The base class of every section of a recipe."""

from __future__ import annotations

import math
from typing import Annotated, Any, ClassVar

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    SerializerFunctionWrapHandler,
    field_validator,
    model_serializer,
)

#: A name that becomes a folder's: no path, and neither `.` nor `..`.
FOLDER_NAME = r"^[A-Za-z0-9_.-]*[A-Za-z0-9_-][A-Za-z0-9_.-]*$"
#: Optimizer steps: a run of more would take decades.
Steps = Annotated[int, Field(gt=0, le=10**9)]


def storable(value: Any) -> Any:
    """Refuse what inputs of tasks and cards cannot hold: JSON has no infinity, Flyte 64 bits.

    Raises:
        ValueError: it is, or has in a list, an infinite number, NaN or an integer past 64 bits.
    """
    for one in value if isinstance(value, list) else [value]:
        if isinstance(one, int) and not -(2**63) <= one < 2**63:
            raise ValueError("Input should be an integer of at most 64 bits")
        if isinstance(one, float) and not math.isfinite(one):
            raise ValueError("Input should be a finite number")
    return value


class Section(BaseModel):
    """One section of a recipe; it refuses unknown keys, and its values cannot be changed."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    #: Keys that came after version 0.1.0: a section that does not use them is stored without them,
    #: so that recipes of before, and states and caches that go by their hashes, stay as they are.
    LATER: ClassVar[tuple[str, ...]] = ()

    _storable = field_validator("*")(storable)

    @model_serializer(mode="wrap")
    def _without_unused_later_keys(
        self, serialize: SerializerFunctionWrapHandler
    ) -> dict[str, Any]:
        content: dict[str, Any] = serialize(self)
        fields = type(self).model_fields
        unused = {key for key in self.LATER if getattr(self, key) == fields[key].default}
        return {key: value for key, value in content.items() if key not in unused}
