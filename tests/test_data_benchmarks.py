"""benchmarks/data.py: each of its tables is printed. Of so few rows no figure means anything."""

import subprocess
from pathlib import Path

import pytest

from benchmarks.data import BATCHINGS

ROOT = Path(__file__).parent.parent
TABLES = {
    "prepare --rows 40 --repeats 1 --side 384": [
        "pictures",
        "──",
        "384x384 JPEG  this           1",
        "384x384 JPEG  this           2",
    ],
    "prepare --rows 10 --repeats 1 --side 64 --against .": [
        "pictures",
        "──",
        "64x64 JPEG  this           1",
        "64x64 JPEG  other          1",
        "64x64 JPEG  this           2",
        "64x64 JPEG  other          2",
    ],
    "loader --rows 40 --tokens 1024 --repeats 1": ["batching", *BATCHINGS],
    "step --rows 40 --tokens 512 --seconds 0.01": ["batching", *BATCHINGS, *BATCHINGS],
}


@pytest.mark.integration
@pytest.mark.parametrize("command", TABLES)
def test_a_table_is_printed(forked: Path, command: str) -> None:
    done = subprocess.run(
        [forked / "python", "-m", "benchmarks.data", *command.split()],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()[1:]  # after the machine's
    assert len(lines) == len(TABLES[command])
    for line, beginning in zip(lines, TABLES[command], strict=True):
        assert line.startswith(beginning)
