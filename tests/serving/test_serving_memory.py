"""What sixteen of the largest pictures that a row may hold take in memory: one at a time."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

from siqvl.recipe import Stage
from siqvl.serving.settings import ServingSettings
from tests.serving.large_pictures import ROWS, SIDE, large_pictures

ROOT = Path(__file__).parents[2]
LIMIT = 10**9  # bytes above those of an idle model
#: In a process of its own: the peak of this one may be of any test before.
ASK = """
import base64, pathlib, sys
import pandas as pd
from mlflow.pyfunc import PythonModelContext
from siqvl.serving.pyfunc_model import VisionLanguageModel
from siqvl.serving.settings import ServingSettings

checkpoint, settings, *files = sys.argv[1:]
model = VisionLanguageModel()
settings = ServingSettings.model_validate_json(settings)
model.load_context(PythonModelContext({"checkpoint": checkpoint}, settings.model_dump()))

def ask(files):
    texts = [base64.b64encode(pathlib.Path(file).read_bytes()).decode() for file in files]
    rows = [{"image": text, "question": "what color is the square?"} for text in texts]
    found = model.predict(pd.DataFrame(rows), params={"max_new_tokens": 4})
    assert len(found) == len(files)

def kilobytes(name):
    status = pathlib.Path("/proc/self/status").read_text()
    return int(status.split(name + ":")[1].split()[0])

ask(files[:1])
idle = kilobytes("VmRSS")
pathlib.Path("/proc/self/clear_refs").write_text("5")  # the peak begins anew
ask(files[1:])
print(kilobytes("VmHWM") - idle, kilobytes("VmRSS") - idle)
"""


@pytest.mark.integration
@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="Linux tells the peak")
def test_sixteen_large_pictures_stay_below_a_gigabyte(trained, tmp_path: Path) -> None:
    settings = ServingSettings.of(trained.recipe)
    assert settings.max_image_pixels >= SIDE * SIDE
    assert settings.max_request_pixels >= SIDE * SIDE * ROWS
    Image.new("RGB", (32, 32), "red").save(tmp_path / "small.png")
    files = [tmp_path / "small.png", *large_pictures(tmp_path)]
    checkpoint = trained.checkpoint(Stage.DPO)
    done = subprocess.run(
        [sys.executable, "-c", ASK, checkpoint, settings.model_dump_json(), *files],
        env=os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=600,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    peak, left = (int(part) * 1024 for part in done.stdout.split())
    print(f"peak {peak / 2**20:,.0f} MiB above idle, {left / 2**20:,.0f} MiB left after it")
    assert peak < LIMIT
    assert left < LIMIT / 4
