#!/usr/bin/env bash
# lmms-eval 0.7.3, task pope: `pope_yes_ratio` is a figure of the data set, whatever the model says.
#
# POPE reports how often a model says yes, beside accuracy and F1, as a model that hallucinates objects says yes too
# often: the half of its questions whose answer is yes makes 50 % the figure of a model without a lean. lmms-eval's
# aggregation counts the labels in place of the predictions, so that a model that always says yes, one that always says
# no and one that is always right have the same ratio. One would guess that the metric of that name is the paper's.
#
# Seen on 2026-11-29, Python 3.11.7, Linux x86-64, of four questions whose answers are yes, no, no, no:
#
#   always yes: yes ratio 0.25, accuracy 0.25
#   always no: yes ratio 0.25, accuracy 0.75
#   always right: yes ratio 0.25, accuracy 1.0
set -euo pipefail

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
"${PYTHON:-python3}" -m venv venv
venv/bin/pip install --quiet --disable-pip-version-check --no-deps lmms-eval==0.7.3

cat > look.py <<'PYTHON'
import importlib.util
from pathlib import Path

import lmms_eval

# the package's own import of all tasks needs torch; the file itself does not
file = Path(lmms_eval.__file__).parent / "tasks" / "pope" / "utils.py"
spec = importlib.util.spec_from_file_location("pope", file)
pope = importlib.util.module_from_spec(spec)
spec.loader.exec_module(pope)
LABELS = ["yes", "no", "no", "no"]
for name, answers in (("yes", ["yes"] * 4), ("no", ["no"] * 4), ("right", LABELS)):
    found = [
        pope.pope_process_results({"question_id": number, "answer": label}, [answer])
        for number, (label, answer) in enumerate(zip(LABELS, answers))
    ]
    ratio = pope.pope_aggregate_yes_ratio([one["pope_yes_ratio"] for one in found])
    accuracy = pope.pope_aggregate_accuracy([one["pope_accuracy"] for one in found])
    print(f"always {name}: yes ratio {ratio}, accuracy {accuracy}")
PYTHON
venv/bin/python look.py > seen 2> said || { cat said; exit 1; }
cat seen
diff seen - <<'SEEN'
always yes: yes ratio 0.25, accuracy 0.25
always no: yes ratio 0.25, accuracy 0.75
always right: yes ratio 0.25, accuracy 1.0
SEEN
