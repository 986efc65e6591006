#!/usr/bin/env bash
# torch 2.13.0, transformers 5.23.0: a process that has imported both works on for a second to end.
#
# What an interpreter holds at its end is freed piece by piece. A program that only imports them spends a quarter
# of its time after its last line. One would guess that the imports are the price and the end is free. It counts
# where processes are many and short, above all where forks have saved the imports: workers, tasks of a
# pipeline, tests. `os._exit` skips it, and also what `atexit` would have done.
#
# Seen on 2026-11-29, Python 3.11.7, Linux x86-64, seconds of a core on an AMD EPYC (the seconds are not compared):
#
#   to import 3.1, to end 0.0 by os._exit, 1.1 by sys.exit
#   to end takes over a tenth of the imports: by os._exit no, by sys.exit yes
set -euo pipefail

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
"${PYTHON:-python3}" -m venv venv
venv/bin/pip install --quiet --disable-pip-version-check torch==2.13.0 transformers==5.23.0

cat > leaving.py <<'PYTHON'
import resource
import subprocess
import sys

PROGRAM = """
import os, resource, sys
import torch, transformers.trainer_utils, transformers.models.qwen2.modeling_qwen2
used = resource.getrusage(resource.RUSAGE_SELF)
print(used.ru_utime + used.ru_stime, flush=True)
{end}(0)
"""


def spent():
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def measured(end):
    """CPU seconds before the last line, and after it: the least of three."""
    imports, ends = [], []
    for _ in range(3):
        before = spent()
        done = subprocess.run(
            [sys.executable, "-c", PROGRAM.format(end=end)], check=True, capture_output=True
        )
        imports.append(float(done.stdout))
        ends.append(spent() - before - imports[-1])
    return min(imports), min(ends)


measured("os._exit")  # the first one compiles
imports, killed = measured("os._exit")
_, freed = measured("sys.exit")
print(f"to import {imports:.1f}, to end {killed:.1f} by os._exit, {freed:.1f} by sys.exit")
over = {name: "yes" if part > imports / 10 else "no" for name, part in
        (("os._exit", killed), ("sys.exit", freed))}
print("to end takes over a tenth of the imports:", ", ".join(f"by {k} {v}" for k, v in over.items()))
PYTHON
OMP_NUM_THREADS=1 HF_HUB_OFFLINE=1 venv/bin/python leaving.py | tee seen.txt

diff <(tail -n 1 seen.txt) - <<'EXPECTED'
to end takes over a tenth of the imports: by os._exit no, by sys.exit yes
EXPECTED
