#!/usr/bin/env bash
# flyte 2.12.1: tasks that seed Python's `random` alike get one address for their files, and write over each other's.
#
# The addresses of files and folders that a task writes are 128 bits of the global `random`. A training seeds it
# (`transformers.set_seed`, Lightning's `seed_everything`), so that in a local run, where all tasks share a raw data path,
# each task with that seed is given the addresses of the one before. What then happens goes by the call:
# - `File.new_remote()`: the second task's file takes the place of the first's, without a word, and who reads the first
#   task's output reads the second's. So do two runs with one `raw_data_path`.
# - `Dir.from_local(…)`, `File.from_local(…)`: FileExistsError.
# One would guess that a task's outputs are its own, whatever its code seeds; flytekit 1.16 draws its names from a generator
# of its own for that. What is left is `random.setstate(…)` before anything is written, or addresses of one's own.
#
# Seen on 2026-11-30, Python 3.11.7, Linux x86-64:
#
#   files, seeds 0 and 1: the first task's output is read as: first
#   files, seeds 0 and 0: the first task's output is read as: second
#   two runs, seeds 0 and 1: the first run's output is read as: first
#   two runs, seeds 0 and 0: the first run's output is read as: second
#   folders, seeds 0 and 1: both are there
#   folders, seeds 0 and 0: File exists
set -euo pipefail

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
"${PYTHON:-python3}" -m venv venv
venv/bin/pip install --quiet --disable-pip-version-check flyte==2.12.1

cat > seeded.py <<'PYTHON'
import logging
import random
import tempfile
from pathlib import Path

import flyte
from flyte.io import Dir, File

env = flyte.TaskEnvironment(name="env")


@env.task
async def trained(seed: int, text: str) -> File:
    random.seed(seed)
    weights = File.new_remote()
    async with weights.open("wb") as stream:
        await stream.write(text.encode())
    return weights


@env.task
async def saved(seed: int) -> Dir:
    random.seed(seed)
    return await Dir.from_local("checkpoint")


@env.task
async def files(first_seed: int, second_seed: int) -> str:
    first = await trained(first_seed, "first")
    await trained(second_seed, "second")
    async with first.open("rb") as stream:
        return bytes(await stream.read()).decode()


@env.task
async def folders(first_seed: int, second_seed: int) -> str:
    await saved(first_seed)
    await saved(second_seed)
    return "both are there"


def run(task, *inputs, raw_data=None):
    raw_data = raw_data or tempfile.mkdtemp(dir=Path.cwd())
    return flyte.with_runcontext(mode="local", raw_data_path=raw_data).run(task, *inputs).outputs()[0]


flyte.init()
logging.disable(logging.CRITICAL)
Path("checkpoint").mkdir()
Path("checkpoint/weights").write_text("weights")
for seeds in ((0, 1), (0, 0)):
    print("files, seeds {} and {}:".format(*seeds), "the first task's output is read as:", run(files, *seeds))
for seeds in ((0, 1), (0, 0)):
    raw_data = tempfile.mkdtemp(dir=Path.cwd())
    first = run(trained, seeds[0], "first", raw_data=raw_data)
    run(trained, seeds[1], "second", raw_data=raw_data)
    read = Path(first.path).read_text()
    print("two runs, seeds {} and {}:".format(*seeds), "the first run's output is read as:", read)
for seeds in ((0, 1), (0, 0)):
    try:
        said = run(folders, *seeds)
    except flyte.errors.RuntimeUserError as error:
        said = "File exists" if "File exists" in str(error) else str(error)
    print("folders, seeds {} and {}:".format(*seeds), said)
PYTHON
HOME="$folder" venv/bin/python seeded.py 2>said | tee seen.txt || { cat said; exit 1; }

diff seen.txt - <<'EXPECTED'
files, seeds 0 and 1: the first task's output is read as: first
files, seeds 0 and 0: the first task's output is read as: second
two runs, seeds 0 and 1: the first run's output is read as: first
two runs, seeds 0 and 0: the first run's output is read as: second
folders, seeds 0 and 1: both are there
folders, seeds 0 and 0: File exists
EXPECTED
