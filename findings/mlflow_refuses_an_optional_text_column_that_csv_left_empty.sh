#!/usr/bin/env bash
# mlflow 3.17.2, pandas 3.1.1: rows that leave an optional text column empty are refused, if all of them do.
#
# A signature may say that a column of texts need not be there (`required=False`), as a picture need not be in a question
# of text alone. Left out, it is taken; with None it is taken; in a CSV file that is empty in some rows, too, as NaN among
# texts. If it is empty in *every* row, pandas makes a column of floats, and the same request is refused before the model
# sees it. So whether a row is answered depends on the other rows of its request. One would guess that a column that may be
# missing may be empty.
#
# Seen on 2026-11-30, Python 3.11.7, Linux x86-64:
#
#   the column left out: taken
#   None in every row: taken
#   CSV, empty in one of two rows: taken
#   CSV, empty in both rows: refused, Incompatible input types for column image
set -euo pipefail

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
"${PYTHON:-python3}" -m venv venv
venv/bin/pip install --quiet --disable-pip-version-check mlflow==3.17.2 pandas==3.1.1

cat > asked.py <<'PYTHON'
import io

import mlflow.pyfunc
import pandas as pd
from mlflow.models import ModelSignature
from mlflow.types.schema import ColSpec, Schema


class Model(mlflow.pyfunc.PythonModel):
    def predict(self, model_input: pd.DataFrame) -> list[str]:
        return ["answer"] * len(model_input)


signature = ModelSignature(
    inputs=Schema([ColSpec("string", "question"), ColSpec("string", "image", required=False)]),
    outputs=Schema([ColSpec("string")]),
)
mlflow.pyfunc.save_model("model", python_model=Model(), signature=signature, pip_requirements=[])
model = mlflow.pyfunc.load_model("model")
for name, rows in (
    ("the column left out", pd.DataFrame({"question": ["a", "b"]})),
    ("None in every row", pd.DataFrame({"question": ["a", "b"], "image": [None, None]})),
    ("CSV, empty in one of two rows", pd.read_csv(io.StringIO("question,image\na,\nb,x\n"))),
    ("CSV, empty in both rows", pd.read_csv(io.StringIO("question,image\na,\nb,\n"))),
):
    try:
        model.predict(rows)
        print(f"{name}: taken")
    except mlflow.MlflowException as error:
        said = [line for line in str(error).replace(". ", "\n").split("\n") if "Incompatible" in line]
        print(f"{name}: refused, {said[0][said[0].index('Incompatible'):]}")
PYTHON
venv/bin/python asked.py 2> said | tee seen.txt || { cat said; exit 1; }

diff seen.txt - <<'EXPECTED'
the column left out: taken
None in every row: taken
CSV, empty in one of two rows: taken
CSV, empty in both rows: refused, Incompatible input types for column image
EXPECTED
