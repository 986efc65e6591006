"""Preparing takes as much memory for a large source as for a small one."""

import io
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

PROGRAM = """
import resource
from pathlib import Path
from siqvl.data.preparation.prepare import prepare
from siqvl.recipe import DataPrep, Source
source = Source(kind="table", path="rows.jsonl")
prepare([source], "sft", Path("out"), data=DataPrep(), seed=0)
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024)
"""


def peak(folder: Path, pictures: int) -> int:
    """MiB that a process holds at most while it prepares so many MiB-large pictures."""
    folder.mkdir()
    noise = np.random.default_rng(0)
    with open(folder / "rows.jsonl", "w") as table:
        for number in range(pictures):
            pixels = noise.integers(0, 256, (600, 600, 3), dtype=np.uint8)
            stream = io.BytesIO()
            Image.fromarray(pixels).save(stream, "PNG", compress_level=0)
            (folder / f"{number}.png").write_bytes(stream.getvalue())
            row = {"image": f"{number}.png", "question": f"{number}?", "answer": "noise"}
            table.write(json.dumps(row) + "\n")
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    command = [sys.executable, "-c", PROGRAM]
    done = subprocess.run(
        command, cwd=folder, env=environment, capture_output=True, text=True, check=True
    )
    return int(done.stdout)


@pytest.mark.integration
def test_four_times_the_pictures_take_no_more_memory(tmp_path):
    few, many = peak(tmp_path / "few", 120), peak(tmp_path / "many", 480)
    assert many - few < 80  # MiB, of 370 MiB more pictures
