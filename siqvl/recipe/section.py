"""The base class of every section of a recipe."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict


class Section(BaseModel):
    """One section of a recipe; it refuses unknown keys, and its values cannot be changed."""

    model_config = ConfigDict(extra="forbid", frozen=True)
