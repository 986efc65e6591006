"""What a run keeps of where it comes from."""

import subprocess
import sys
from importlib.metadata import version
from pathlib import Path
from types import SimpleNamespace

import pytest
import yaml

from siqvl.recipe import Recipe
from siqvl.tracking import environment
from siqvl.tracking.environment import environment_text, keep_origin, recipe_text

RECIPES = Path(__file__).parents[2] / "recipes"


@pytest.mark.parametrize("path", sorted(RECIPES.glob("*.yaml")), ids=lambda path: path.stem)
def test_the_recipe_that_is_kept_is_the_recipe(path: Path, tmp_path: Path) -> None:
    recipe = Recipe.load(path)
    (tmp_path / "recipe.yaml").write_text(recipe_text(recipe), encoding="utf-8")
    again = Recipe.load(tmp_path / "recipe.yaml")
    assert again == recipe
    assert again.hash() == recipe.hash()
    kept = list(yaml.safe_load(recipe_text(recipe)))
    unused = Recipe.LATER  # by any of them: stored recipes leave these out
    assert kept == [key for key in Recipe.model_fields if key not in unused]


def test_packages_are_those_that_pip_lists() -> None:
    lines = environment_text().splitlines()
    assert lines[0] == f"# python {sys.version.split()[0]}"
    packages = [line for line in lines if not line.startswith("#")]
    names = [line.split("==")[0].lower() for line in packages]
    assert names == sorted(names)
    assert len(names) == len(set(names))
    assert f"torch=={version('torch')}" in packages
    asked = [sys.executable, "-m", "pip", "list", "--format=freeze", "--disable-pip-version-check"]
    listed = subprocess.run(asked, capture_output=True, text=True, check=True).stdout.split()
    canonical = {line.lower().replace("_", "-") for line in packages}
    assert {line.lower().replace("_", "-") for line in listed if "siqvl" not in line} <= canonical


def test_gpus_are_named_with_their_driver(monkeypatch: pytest.MonkeyPatch) -> None:
    cuda = SimpleNamespace(
        is_available=lambda: True,
        device_count=lambda: 2,
        get_device_name=lambda index: "NVIDIA H100 80GB HBM3",
    )
    torch = SimpleNamespace(cuda=cuda, version=SimpleNamespace(cuda="12.8"))
    monkeypatch.setitem(sys.modules, "torch", torch)
    monkeypatch.setattr(environment, "_driver", lambda: "570.86")
    assert "# 2 x NVIDIA H100 80GB HBM3, CUDA 12.8, driver 570.86" in environment_text()


def test_torch_is_not_imported_for_it() -> None:
    code = (
        "import sys; from siqvl.tracking.environment import environment_text as e; e(); "
        "print('torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"


def test_both_files_go_to_the_run() -> None:
    kept: dict[str, str] = {}
    log = SimpleNamespace(text=lambda content, name: kept.update({name: content}))
    recipe = Recipe.load(RECIPES / "tiny.yaml")
    keep_origin(log, recipe)
    assert kept == {"recipe.yaml": recipe_text(recipe), "environment.txt": environment_text()}
