"""A copy of the code as a user has it, and pyflyte as a user types it."""

import os
import subprocess
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest

COPIED = ("siqvl", "tasks", "workflows", "recipes", "flyte.config")

Pyflyte = Callable[..., str]


@pytest.fixture(scope="session")
def pyflyte(forked: Path) -> Pyflyte:
    """`pyflyte` that does not import the heavy libraries each time."""
    return partial(run_pyflyte, programs=forked)


@pytest.fixture(scope="session")
def installed_pyflyte() -> Pyflyte:
    return partial(run_pyflyte, programs=Path(sys.executable).parent)


def run_pyflyte(*arguments: str, folder: Path, programs: Path, code: int = 0) -> str:
    """Run pyflyte in a copy of the tree, as on a machine of its own; returns what it prints."""
    environment = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("FLYTE", "MLFLOW", "PYTEST"))
    }
    done = subprocess.run(
        [programs / "pyflyte", *arguments],
        cwd=folder,
        env=environment | {"COLUMNS": "200", "NO_COLOR": "1", "HOME": str(folder)},
        capture_output=True,
        text=True,
        timeout=900,
        check=False,
    )
    assert done.returncode == code, done.stdout + done.stderr
    return done.stdout + done.stderr


@pytest.fixture(scope="session")
def checkout(tmp_path_factory: pytest.TempPathFactory, code) -> Path:
    """The code as a user has it, without this machine's outputs."""
    return code(tmp_path_factory.mktemp("checkout"), COPIED)
