#!/usr/bin/env bash
# lmms-eval 0.7.3, tasks mmmu and mmmu_pro: an option answered word for word is scored as another one, or as one drawn
# at random.
#
# A multiple-choice answer of MMMU is read by looking for `(A)`, then for an option's letter between spaces. lmms-eval's
# copy of that script has lost the space in front, so that a word which ends in a capital is a letter: "DNA polymerase" is
# A. The article at the beginning of a sentence is the first option in both. Only where no letter is found are the
# options' texts looked for, and only in answers of more than five words. What is left, a short answer that *is* an
# option's text, or a letter in bold, gets a letter by `random.choice`, and a quarter of them is right. One would guess
# that an answer equal to the right option's text is right, and that what cannot be read is wrong.
#
# Seen on 2026-11-30, Python 3.11.7, Linux x86-64, options A "RNA polymerase", B "DNA polymerase", C "ligase", D "helicase",
# each answer read 1,000 times:
#
#   B: B
#   The answer is (B): B
#   DNA polymerase: A
#   A ligase: A
#   ligase: A, B, C, D
#   **C**: A, B, C, D
#   This step needs the enzyme ligase: C
set -euo pipefail

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
"${PYTHON:-python3}" -m venv venv
venv/bin/pip install --quiet --disable-pip-version-check --no-deps lmms-eval==0.7.3
venv/bin/pip install --quiet --disable-pip-version-check numpy==2.4.6  # all that the file below imports

cat > read.py <<'PYTHON'
import importlib.util
import random
import sysconfig
from pathlib import Path

# the package's own import of all tasks needs torch; the file itself does not
root = Path(sysconfig.get_paths()["purelib"]) / "lmms_eval"
for task in ("mmmu", "mmmu_pro"):
    assert "parse_mmmu_multi_choice_response(response" in (root / "tasks" / task / "utils.py").read_text()
spec = importlib.util.spec_from_file_location("mcq", root / "tasks" / "_task_utils" / "mmmu_mcq_utils.py")
mcq = importlib.util.module_from_spec(spec)
spec.loader.exec_module(mcq)

texts, letters = mcq.get_multi_choice_info(["RNA polymerase", "DNA polymerase", "ligase", "helicase"])
random.seed(42)
for answer in (
    "B", "The answer is (B)", "DNA polymerase", "A ligase", "ligase", "**C**", "This step needs the enzyme ligase",
):
    read = {mcq.parse_mmmu_multi_choice_response(answer, letters, texts) for _ in range(1000)}
    print(f"{answer}: {', '.join(sorted(read))}")
PYTHON
venv/bin/python read.py | tee seen.txt

diff seen.txt - <<'EXPECTED'
B: B
The answer is (B): B
DNA polymerase: A
A ligase: A
ligase: A, B, C, D
**C**: A, B, C, D
This step needs the enzyme ligase: C
EXPECTED
