#!/usr/bin/env bash
# lmms-eval 0.7.3, task mathvista: a right decimal answer is scored wrong, as `precision` comes as a float.
#
# Questions of MathVista with a decimal answer have a column `precision`, the number of decimal places that counts. It
# is empty for the other questions, and the card of AI4Math/MathVista says float64: 1.0 and 2.0. lmms-eval rounds an
# answer by `round(number, precision)`; Python's `round` takes no float there and raises TypeError, which a bare
# `except` turns into no answer. With an integer, which no row of the published set has, the same answer is right. One
# would guess that a score near zero of these questions says something of the model.
#
# Seen on 2026-11-29, Python 3.11.7, Linux x86-64:
#
#   precision 1: '1.5' is read as '1.5', right: True
#   precision 1.0: '1.5' is read as None, right: False
set -euo pipefail

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
"${PYTHON:-python3}" -m venv venv
venv/bin/pip install --quiet --disable-pip-version-check --no-deps lmms-eval==0.7.3
# what this file of it imports, and no model library
venv/bin/pip install --quiet --disable-pip-version-check \
  aiohttp==3.14.5 levenshtein==0.27.5 loguru==0.7.3 numpy==2.4.6 pillow==13.0.0 pytz==2026.6 pyyaml==6.0.3 requests==2.34.2

cat > look.py <<'PYTHON'
import importlib.util
from pathlib import Path

import lmms_eval

# the package's own import of all tasks needs torch; the file itself does not
file = Path(lmms_eval.__file__).parent / "tasks" / "mathvista" / "mathvista_evals.py"
spec = importlib.util.spec_from_file_location("mathvista_evals", file)
module = importlib.util.module_from_spec(spec)
spec.loader.exec_module(module)
evaluator = module.MathVistaEvaluator.__new__(module.MathVistaEvaluator)  # the judge by API is not asked
for precision in (1, 1.0):
    read = evaluator.normalize_extracted_answer("1.5", None, "free_form", "float", precision)
    right = evaluator.safe_equal(read, "1.5")
    print(f"precision {precision}: '1.5' is read as {read!r}, right: {right}")
PYTHON
venv/bin/python look.py > said 2>&1 || { cat said; exit 1; }
grep '^precision' said > seen  # else which clients of judges are missing
cat seen
diff seen - <<'SEEN'
precision 1: '1.5' is read as '1.5', right: True
precision 1.0: '1.5' is read as None, right: False
SEEN
