"""What an installed SiQ-VL is: the wheel, and its commands in a folder where nothing else is."""

import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from tests.quick import made_once

ROOT = Path(__file__).parent.parent
pytestmark = pytest.mark.integration


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Built from what git knows, so that nothing that lies around here gets into it."""

    def make(folder: Path) -> None:
        known = ["git", "ls-files", "-co", "--exclude-standard", "-z"]
        named = subprocess.run(known, cwd=ROOT, capture_output=True, check=True).stdout
        for name in filter(None, named.decode().split("\0")):
            if (ROOT / name).is_file():
                (folder / "source" / name).parent.mkdir(parents=True, exist_ok=True)
                shutil.copy(ROOT / name, folder / "source" / name)
        build = [sys.executable, "-m", "pip", "wheel", "--no-deps", "--no-build-isolation", "-q"]
        subprocess.run([*build, "-w", str(folder), str(folder / "source")], check=True)

    folder = made_once(tmp_path_factory, "wheel", make)
    (found,) = folder.glob("*.whl")
    return found


def test_it_holds_the_package_and_the_recipes_and_nothing_else(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as content:
        names = {name for name in content.namelist() if not name.endswith("/")}
    tops = {name.split("/")[0] for name in names}
    assert tops == {"siqvl", f"{'-'.join(wheel.name.split('-')[:2])}.dist-info"}
    for path in (ROOT / "siqvl").rglob("*"):
        if path.is_file() and "__pycache__" not in path.parts:
            assert path.relative_to(ROOT).as_posix() in names
    recipes = [path for path in (ROOT / "recipes").rglob("*") if path.is_file()]
    for path in recipes:
        assert f"siqvl/{path.relative_to(ROOT).as_posix()}" in names
    assert not any("__pycache__" in name or "mlflow.db" in name for name in names)


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the wheel's content, as pip puts it into site-packages."""
    folder = tmp_path_factory.mktemp("installed")
    with zipfile.ZipFile(wheel) as content:
        content.extractall(folder)
    return folder


def run(installed: Path, folder: Path, *words: str) -> subprocess.CompletedProcess[str]:
    """A command of the installed siqvl, in a folder of its own, without this checkout."""
    others = [path for path in sys.path if path and Path(path).resolve() != ROOT.resolve()]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(installed), *others])}
    return subprocess.run(
        [sys.executable, "-P", *words],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        timeout=300,
    )


def test_its_commands_are_there(installed: Path, tmp_path: Path) -> None:
    told = run(installed, tmp_path, "-c", "import siqvl; print(siqvl.__file__)")
    assert Path(told.stdout.strip()).is_relative_to(installed), told.stderr
    done = run(installed, tmp_path, "-m", "siqvl", "--help")
    assert {"answer", "chat", "look", "serve"} <= set(done.stdout.split())
    points = next(installed.glob("*.dist-info")) / "entry_points.txt"
    assert "siqvl = siqvl.cli.main:main" in points.read_text()


def test_a_shipped_recipe_is_found_from_anywhere(installed: Path, tmp_path: Path) -> None:
    """With the tokens of the small weights that it names."""
    done = run(
        installed, tmp_path, *("-m", "siqvl", "look", "recipes/tiny.yaml", "--stage", "vqa_sft")
    )
    assert done.returncode == 0, done.stderr
    assert "tokens" in done.stdout
    assert "without tokens" not in done.stdout
    assert [path.name for path in tmp_path.iterdir()] == ["look.html"]
