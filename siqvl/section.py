"""The base of every part of a recipe."""

from __future__ import annotations

from copy import deepcopy
from typing import Any

from pydantic import BaseModel, ConfigDict


class Section(BaseModel):
    """A part of a recipe: unknown keys are refused, values do not change once read."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    @classmethod
    def model_json_schema(cls, *args: Any, **kwargs: Any) -> dict[str, Any]:
        """pydantic's schema, made once a class.

        flytekit asks for it some 170 times while the workflow is imported, for the same few
        classes, which took more than half of `pyflyte run … --help`.
        """
        if args or kwargs:
            return super().model_json_schema(*args, **kwargs)
        if cls not in _SCHEMAS:
            _SCHEMAS[cls] = super().model_json_schema()
        return deepcopy(_SCHEMAS[cls])


_SCHEMAS: dict[type[Section], dict[str, Any]] = {}
