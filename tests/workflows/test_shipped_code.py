"""What `register` and `run --copy all` ship to every pod, packed as flytekit packs it."""

import tarfile
from pathlib import Path

import pytest
from flytekit.constants import CopyFileDetection
from flytekit.tools.fast_registration import FastPackageOptions, fast_package

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def shipped(tmp_path_factory: pytest.TempPathFactory) -> tarfile.TarFile:
    options = FastPackageOptions([], copy_style=CopyFileDetection.ALL)
    return tarfile.open(fast_package(ROOT, tmp_path_factory.mktemp("shipped"), False, options))


def test_it_is_small(shipped: tarfile.TarFile) -> None:
    """It was 9.7 MB: images have the base weights of the tiny recipe."""
    assert isinstance(shipped.name, str)
    assert Path(shipped.name).stat().st_size < 1_000_000


def test_it_is_what_a_task_needs(shipped: tarfile.TarFile) -> None:
    names = set(shipped.getnames())
    tops = {name.partition("/")[0] for name in names}
    assert tops <= {"siqvl", "tasks", "workflows", "recipes", ".dockerignore"}
    here = {
        str(path.relative_to(ROOT))
        for folder in ("siqvl", "tasks", "workflows")
        for path in (ROOT / folder).rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }
    recipes = {f"recipes/{path.name}" for path in (ROOT / "recipes").glob("*.yaml")}
    assert here | recipes == {name for name in names if not name.startswith(".")}
