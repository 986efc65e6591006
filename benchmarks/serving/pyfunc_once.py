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

import siqvl
from siqvl.checkpoint import CARD
from siqvl.serving.pyfunc_model import VisionLanguageModel
from siqvl.serving.settings import ServingSettings

checkpoint, rows = sys.argv[1:]
settings = ServingSettings.of(json.loads((Path(checkpoint) / CARD).read_text())["recipe"])
model = VisionLanguageModel()
model.load_context(PythonModelContext({"checkpoint": checkpoint}, settings.model_dump()))
asked = json.loads(Path(rows).read_text())


def answer(one: dict) -> str:
    params = {"max_new_tokens": one["tokens"]}
    return model.predict(pd.DataFrame([one["row"]]), params=params)["answer"][0]


answer(asked[0] | {"tokens": 2})  # what comes first takes longest
start = time.perf_counter()
texts = [answer(one) for one in asked]
took = time.perf_counter() - start
print(json.dumps({"seconds": took, "texts": texts, "siqvl": siqvl.__file__}))
