#!/usr/bin/env bash
# lmms-eval 0.7.3, `output_type: multiple_choice`: of log-probabilities, the least likely option is the model's choice.
#
# Tasks of this type (ARC, HellaSwag, MMLU, GPQA, SEED-Bench's seedbench_ppl) ask a model for the likelihood of every
# option. `lmms.loglikelihood`, which a model has to implement, is documented to return pairs of a log-probability and
# whether the option would be written, as in lm-evaluation-harness, where this comes from and where the greatest one is
# the choice. Here the task takes the least (`np.argmin`), as the models that come with lmms-eval return losses. So a
# model that is sure of every right answer, and is written as the documentation says, scores 0; with the sign changed it
# scores 1. `acc_norm` does the same, and `acc_mutual_info`, beside them, takes the greatest. Before that, this version
# makes a text of the pair (`unwrap_generation_output`), unless a model wraps it in a `GenerationResult`, so that such
# tasks score nothing with any of its own models. One would guess that what a base class documents is what its callers
# expect.
#
# Seen on 2026-11-30, Python 3.11.7, Linux x86-64, of questions whose right option has a probability of 0.8:
#
#   documented: `logprob: float`, `isgreedy`:
#   log-probabilities: acc 0.0, acc_norm 0.0
#   their negatives: acc 1.0, acc_norm 1.0
#   the pair (0.2, True) is handed on as '(0.2, True)', in a GenerationResult as (0.2, True)
set -euo pipefail

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
"${PYTHON:-python3}" -m venv venv
# what tasks and models of it import
venv/bin/pip install --quiet --disable-pip-version-check \
  accelerate==1.15.0 datasets==5.2.0 evaluate==0.4.6 jinja2==3.1.6 loguru==0.7.3 numpy==2.4.6 pillow==13.0.0 \
  pytz==2026.6 sacrebleu==2.6.0 sympy==1.14.0 tenacity==9.2.1 torch==2.13.0 transformers==5.23.0
venv/bin/pip install --quiet --disable-pip-version-check --no-deps lmms-eval==0.7.3

cat > look.py <<'PYTHON'
import json
import math
import os
from pathlib import Path

os.environ |= {"HF_HUB_OFFLINE": "1", "HF_HOME": str(Path("hub").resolve())}
from lmms_eval.api.instance import GenerationResult, unwrap_generation_output
from lmms_eval.api.model import lmms
from lmms_eval.api import metrics  # which registers them
from lmms_eval.api.task import ConfigurableTask

documented = [line.strip() for line in lmms.loglikelihood.__doc__.splitlines()]
print("documented: " + ", ".join(line for line in documented if line.startswith(("`logprob", "`isgreedy"))))

rows = [{"question": f"{n}?", "options": ["one", "two", "six"], "right": n} for n in range(3)]
Path("rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
task = ConfigurableTask(
    config={
        "task": "numbers",
        "dataset_path": "json",
        "dataset_kwargs": {"data_files": {"test": str(Path("rows.jsonl").resolve())}},
        "test_split": "test",
        "output_type": "multiple_choice",
        "doc_to_text": "question",
        "doc_to_choice": "options",
        "doc_to_target": "right",
        "metric_list": [
            {"metric": name, "aggregation": "mean", "higher_is_better": True} for name in ("acc", "acc_norm")
        ],
    }
)
for name, sign in (("log-probabilities", 1), ("their negatives", -1)):
    scores = []
    for doc in task.eval_docs:
        likely = [0.8 if n == doc["right"] else 0.1 for n in range(3)]
        scores.append(task.process_results(doc, [(sign * math.log(one), one > 0.5) for one in likely]))
    means = [f"{metric} {sum(one[metric] for one in scores) / len(scores)}" for metric in ("acc", "acc_norm")]
    print(f"{name}: {', '.join(means)}")
bare, wrapped = (unwrap_generation_output(one)[0] for one in ((0.2, True), GenerationResult((0.2, True))))
print(f"the pair (0.2, True) is handed on as {bare!r}, in a GenerationResult as {wrapped!r}")
PYTHON
venv/bin/python look.py > said 2> errors || { cat said errors; exit 1; }
grep -E '^(documented|log-prob|their|the pair)' said > seen  # else what it logs
cat seen
diff seen - <<'SEEN'
documented: `logprob: float`, `isgreedy`:
log-probabilities: acc 0.0, acc_norm 0.0
their negatives: acc 1.0, acc_norm 1.0
the pair (0.2, True) is handed on as '(0.2, True)', in a GenerationResult as (0.2, True)
SEEN
