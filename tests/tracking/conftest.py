"""A store of a file's own with the tiny recipe; files that look at other things have their own."""

from pathlib import Path

import pytest

from siqvl.recipe import Recipe

RECIPES = Path(__file__).parents[2] / "recipes"


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("mlflow")


@pytest.fixture
def recipe(store: Path, monkeypatch: pytest.MonkeyPatch) -> Recipe:
    monkeypatch.chdir(store)  # a sqlite store keeps its artifacts in ./mlruns
    content = Recipe.load(RECIPES / "tiny.yaml").model_dump()
    content["tracking"] = {"experiment": "test", "uri": f"sqlite:///{store}/mlflow.db"}
    return Recipe.model_validate(content)
