"""The registry is a part of the MLflow store: its tests have the store that those of runs have."""

from tests.tracking.conftest import recipe, store

__all__ = ["recipe", "store"]
