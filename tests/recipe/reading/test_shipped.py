"""Shipped recipes from anywhere; one's own come first."""

from pathlib import Path

import pytest

from siqvl.check import check_model
from siqvl.errors import UserError
from siqvl.recipe import Recipe
from siqvl.recipe.reading import shipped
from siqvl.recipe.reading.shipped import shipped as found

ROOT = Path(__file__).parents[3]


@pytest.fixture(autouse=True)
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def test_a_recipe_and_its_weights_are_found_from_anywhere() -> None:
    recipe = Recipe.load("recipes/tiny.yaml")
    assert recipe == Recipe.load(ROOT / "recipes" / "tiny.yaml")
    check_model(recipe.model)
    assert found(recipe.model.vision) == ROOT / "recipes" / "tiny_base" / "vision"


def test_ones_own_comes_first(tmp_path: Path) -> None:
    own = tmp_path / "recipes" / "tiny.yaml"
    own.parent.mkdir()
    own.write_text("base: recipes/easyvqa.yaml\nname: mine\n")
    assert Recipe.load("recipes/tiny.yaml").name == "mine"
    assert found("recipes/tiny.yaml") == Path("recipes/tiny.yaml")


def test_a_copy_inside_the_package_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    inside = tmp_path / "site-packages" / "siqvl" / "recipes"
    inside.mkdir(parents=True)
    (inside / "tiny.yaml").write_text("")
    monkeypatch.setattr(shipped, "FOLDERS", (inside, tmp_path / "site-packages" / "recipes"))
    assert found("recipes/tiny.yaml") == inside / "tiny.yaml"
    assert found("recipes/none.yaml") == Path("recipes/none.yaml")


@pytest.mark.parametrize(
    "path", ["other/tiny.yaml", "tiny.yaml", "owner/name", "/recipes/tiny.yaml"]
)
def test_other_paths_stay(path: str) -> None:
    assert found(path) == Path(path)


def test_what_is_not_shipped_is_said() -> None:
    with pytest.raises(UserError, match=r"recipes/none\.yaml does not exist"):
        Recipe.load("recipes/none.yaml")
