"""A recipe whose runs go to a store that the tests of a file share, each in its own experiment."""

from collections.abc import Callable
from pathlib import Path

import pytest

from siqvl.recipe import Recipe


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> str:
    """MLflow's, of all tests of a file: to make one takes seconds."""
    return f"sqlite:///{tmp_path_factory.mktemp('mlflow')}/mlflow.db"


@pytest.fixture
def recipe(
    tmp_path: Path,
    small_recipe: Callable[..., Recipe],
    store: str,
    monkeypatch: pytest.MonkeyPatch,
) -> Recipe:
    monkeypatch.chdir(tmp_path)  # MLflow's artifacts go to ./mlruns
    return small_recipe(tmp_path, tracking={"experiment": str(tmp_path), "uri": store})
