#!/usr/bin/env bash
# pandas 3.1.1, pyarrow 25.0.1: the options of a question become one option on their way through a CSV.
#
# A column of lists, as multiple-choice sets have it, comes out of parquet as numpy arrays, and `to_csv` writes numpy's
# way of printing: no commas. It still looks like a Python list, and `ast.literal_eval`, the usual way to read such a
# cell again, takes two texts side by side for one text. So nothing fails, and a question with three options has one.
# One would guess either the list, or an error. A column made of Python's own lists survives.
#
# Seen on 2026-11-29, Python 3.11.7, Linux x86-64:
#
#   from a list: ['red', 'blue', 'green'] -> 3 options
#   from parquet: ['red' 'blue' 'green'] -> 1 option
set -euo pipefail

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
"${PYTHON:-python3}" -m venv venv
venv/bin/pip install --quiet --disable-pip-version-check pandas==3.1.1 pyarrow==25.0.1

cat > options.py <<'PYTHON'
import ast

import pandas as pd

OPTIONS = ["red", "blue", "green"]


def show(what, frame):
    frame.to_csv("rows.csv", index=False)
    cell = pd.read_csv("rows.csv")["options"][0]
    found = ast.literal_eval(cell)
    print(f"{what}: {cell} -> {len(found)} option{'s' if len(found) > 1 else ''}")


made = pd.DataFrame({"options": [OPTIONS]})
show("from a list", made)
made.to_parquet("rows.parquet")
show("from parquet", pd.read_parquet("rows.parquet"))
PYTHON
venv/bin/python options.py | tee seen.txt

diff seen.txt - <<'EXPECTED'
from a list: ['red', 'blue', 'green'] -> 3 options
from parquet: ['red' 'blue' 'green'] -> 1 option
EXPECTED
