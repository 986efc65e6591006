#!/usr/bin/env bash
# datasets 5.2.0: of a folder in which one file's name says a split, the others are left out.
#
# `load_dataset(folder)` reads all tables of a folder as `train` while no name says a split. When one of them is
# later called after a split, every file that says none is dropped, without a word: rows that were trained on the day
# before are gone. One would guess that they stay `train`. ImageFolder's `metadata` table does the same beside the
# folders of its splits: the pictures are there, the questions are not, and each has a `label`, its split.
#
# Seen on 2026-11-29, Python 3.11.7, Linux x86-64:
#
#   a.jsonl, b.jsonl: train 2
#   a.jsonl, b.jsonl, c_test.jsonl: test 1
#   metadata.jsonl, train/0.png, test/0.png: train 1, test 1, columns image, label
set -euo pipefail

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
"${PYTHON:-python3}" -m venv venv
venv/bin/pip install --quiet --disable-pip-version-check datasets==5.2.0 pillow==13.0.0

cat > folders.py <<'PYTHON'
import json
from pathlib import Path

from datasets import disable_progress_bars, load_dataset
from PIL import Image

disable_progress_bars()


def table(path, *rows):
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    Path(path).write_text("".join(json.dumps(row) + "\n" for row in rows))


def seen(*arguments, **options):
    return ", ".join(f"{name} {len(rows)}" for name, rows in load_dataset(*arguments, **options).items())


for name in ("a", "b"):
    table(f"plain/{name}.jsonl", {"question": f"{name}?", "answer": "yes"})
print("a.jsonl, b.jsonl:", seen("plain"))
for name in ("a", "b", "c_test"):
    table(f"mixed/{name}.jsonl", {"question": f"{name}?", "answer": "yes"})
print("a.jsonl, b.jsonl, c_test.jsonl:", seen("mixed"))

for split in ("train", "test"):
    Path(f"pictures/{split}").mkdir(parents=True)
    Image.new("RGB", (8, 8), "red").save(f"pictures/{split}/0.png")
rows = [{"file_name": f"{split}/0.png", "question": "What color?"} for split in ("train", "test")]
table("pictures/metadata.jsonl", *rows)
found = load_dataset("imagefolder", data_dir="pictures")
counts = ", ".join(f"{name} {len(rows)}" for name, rows in found.items())
columns = ", ".join(found["train"].column_names)
print(f"metadata.jsonl, train/0.png, test/0.png: {counts}, columns {columns}")
PYTHON
HF_HUB_OFFLINE=1 HF_HOME="$folder/hub" venv/bin/python folders.py | tee seen.txt

diff seen.txt - <<'EXPECTED'
a.jsonl, b.jsonl: train 2
a.jsonl, b.jsonl, c_test.jsonl: test 1
metadata.jsonl, train/0.png, test/0.png: train 1, test 1, columns image, label
EXPECTED
