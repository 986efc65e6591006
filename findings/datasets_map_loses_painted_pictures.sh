#!/usr/bin/env bash
# datasets 5.2.0, Pillow 13.0.0: `map` loses what was painted into a picture that lies in a file.
#
# A picture that was read from a file knows the file's name. When the row that `map` was given comes back
# with the same picture in it, its name is written down and not its pixels, so boxes, masks or blackened faces
# that a function painted are gone, without a word; the next reader gets the file as it was. The same
# function on a picture held as bytes, or on a copy, is kept. One would guess that what a function
# returns is what is stored, wherever the picture came from.
#
# Seen on 2026-11-29, Python 3.11.7, Linux x86-64; every picture is white and gets painted black:
#
#   in a file, painted in place: white
#   in a file, a copy painted: black
#   held as bytes, painted in place: black
set -euo pipefail

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
"${PYTHON:-python3}" -m venv venv
venv/bin/pip install --quiet --disable-pip-version-check datasets==5.2.0 pillow==13.0.0

cat > painted.py <<'PYTHON'
import io

from datasets import Dataset, Features, Image, disable_progress_bars
from PIL import Image as Pictures

disable_progress_bars()
white = Pictures.new("RGB", (8, 8), "white")
white.save("white.png")
stream = io.BytesIO()
white.save(stream, "PNG")


def in_place(row):
    row["image"].paste("black", (0, 0, 8, 8))
    return row


def on_a_copy(row):
    row["image"] = row["image"].copy()
    return in_place(row)


def show(what, picture, function):
    rows = Dataset.from_dict({"image": [picture]}, features=Features({"image": Image()}))
    color = rows.map(function)[0]["image"].getpixel((0, 0))
    print(f"{what}: {'white' if color == (255, 255, 255) else 'black'}")


show("in a file, painted in place", "white.png", in_place)
show("in a file, a copy painted", "white.png", on_a_copy)
show("held as bytes, painted in place", {"bytes": stream.getvalue(), "path": None}, in_place)
PYTHON
HF_HUB_OFFLINE=1 HF_HOME="$folder/hub" venv/bin/python painted.py | tee seen.txt

diff seen.txt - <<'EXPECTED'
in a file, painted in place: white
in a file, a copy painted: black
held as bytes, painted in place: black
EXPECTED
