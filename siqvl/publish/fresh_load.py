"""Whether a published folder loads and answers in a process that has no siqvl."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from siqvl.errors import UserError

#: Runs alone: `-I` leaves out the working directory and PYTHONPATH, and the finder refuses a siqvl
#: that is installed beside transformers.
PROGRAM = """
import json, sys, time

class Refused:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] == "siqvl":
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)

sys.meta_path.insert(0, Refused())
begin = time.monotonic()
import torch
from PIL import Image
from transformers import AutoModelForImageTextToText, AutoProcessor

folder = sys.argv[1]
options = {"trust_remote_code": True, "local_files_only": True}
model = AutoModelForImageTextToText.from_pretrained(folder, **options).eval()
processor = AutoProcessor.from_pretrained(folder, **options)
content = [{"type": "image"}, {"type": "text", "text": "What is in the picture?"}]
text = processor.apply_chat_template(
    [{"role": "user", "content": content}], add_generation_prompt=True
)
picture = Image.linear_gradient("L").convert("RGB")
inputs = processor(text=text, images=[picture], return_tensors="pt")
with torch.no_grad():
    logits = model(**inputs).logits[0, -1].float()
    ids = model.generate(**inputs, max_new_tokens=8, do_sample=False)
written = ids[0, inputs["input_ids"].shape[1]:].tolist()
assert "siqvl" not in sys.modules
print(json.dumps({
    "class_name": f"{type(model).__module__}.{type(model).__qualname__}",
    "finite": bool(torch.isfinite(logits).all()),
    "ids": written,
    "text": processor.decode(written, skip_special_tokens=True),
    "seconds": round(time.monotonic() - begin, 1),
}))
"""
SECONDS = 1800  # that loading may take: weights of gigabytes from a slow disk


@dataclass(frozen=True)
class FreshAnswer:
    """What the process said.

    Attributes:
        ids: of the tokens that were written, greedily, about a gradient.
        class_name: of the model, with its module, which is not of siqvl.
    """

    class_name: str
    finite: bool
    ids: list[int]
    text: str
    seconds: float


def answer_elsewhere(folder: Path) -> FreshAnswer:
    """Load a folder in a fresh process without siqvl and the network, and ask it something.

    Raises:
        UserError: it cannot be loaded there, or what it computes is not finite.
    """
    command = [sys.executable, "-I", "-c", PROGRAM, str(folder.resolve())]
    options: Any = {"capture_output": True, "text": True, "timeout": SECONDS, "check": False}
    with tempfile.TemporaryDirectory() as home:
        # its code is cached by the folder's name: a cache of its own holds no other model's
        own = {"HF_HOME": home, "HF_MODULES_CACHE": f"{home}/modules", "HF_HUB_OFFLINE": "1"}
        try:
            done = subprocess.run(command, env={**os.environ, **own}, cwd=home, **options)
        except subprocess.TimeoutExpired:
            raise UserError(
                f"not published: it did not load within {SECONDS // 60} minutes; `--skip-load` "
                "leaves this out"
            ) from None
    if done.returncode:
        last = (done.stderr.strip().splitlines() or ["no reason given"])[-1]
        raise UserError(f"not published: without this package it does not load ({last})")
    found = FreshAnswer(**json.loads(done.stdout.strip().splitlines()[-1]))
    if not found.finite:
        raise UserError("not published: without this package its scores are not finite")
    return found
