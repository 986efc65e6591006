"""A registered model of whichever siqvl is on the path answers rows, one request after the other.

python -P benchmarks/serving/pyfunc_once.py CHECKPOINT ROWS, a JSON file of rows and their tokens;
prints seconds and answers as JSON.
"""

import json
import sys
import time
from pathlib import Path

import pandas as pd
from mlflow.pyfunc import PythonModelContext

from siqvl.serving.pyfunc_model import VisionLanguageModel
from siqvl.serving.settings import ServingSettings

checkpoint, rows = sys.argv[1:]
# as the recipe has them, by names that every build knows
said = json.loads((Path(checkpoint) / "siqvl.json").read_text())["recipe"]
settings = ServingSettings(
    **{name: said["serving"][name] for name in ("max_new_tokens", "batch_size", "max_rows")},
    **{name: said["data"][name] for name in ("max_image_pixels", "max_characters")},
    attention=said["model"]["attention"],
)
model = VisionLanguageModel()
model.load_context(PythonModelContext({"checkpoint": checkpoint}, settings.model_dump()))
asked = json.loads(Path(rows).read_text())


def answer(one: dict) -> str:
    params = {"max_new_tokens": one["tokens"]}
    return model.predict(pd.DataFrame([one["row"]]), params=params)["answer"][0]


answer(asked[0] | {"tokens": 2})  # what comes first takes longest
start, busy = time.perf_counter(), time.process_time()
texts = [answer(one) for one in asked]
took, busy = time.perf_counter() - start, time.process_time() - busy
# an installed siqvl lends whatever the other one lacks
modules = [module for name, module in sys.modules.items() if name.partition(".")[0] == "siqvl"]
files = [str(module.__file__) for module in modules]
print(json.dumps({"seconds": took, "cpu_seconds": busy, "texts": texts, "files": files}))
