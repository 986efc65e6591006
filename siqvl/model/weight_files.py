"""The files that hold a model's weights, in one or in several, as transformers writes them."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import torch

WHOLE = "model.safetensors"
INDEX = "model.safetensors.index.json"


def weight_files(folder: Path) -> list[Path]:
    """The files of a model's folder that its weights are read from."""
    index = folder / INDEX
    if not index.is_file():
        return [folder / WHOLE]
    names = json.loads(index.read_text(encoding="utf-8"))["weight_map"].values()
    return [folder / name for name in sorted(set(names))]


def one_by_one(folder: Path) -> Iterator[tuple[str, torch.Tensor]]:
    """Give each weight as it is stored, with its name.

    A file is opened anew for each: what was read through one handle stays in this process's memory
    until it is closed.
    """
    from safetensors import safe_open

    for file in weight_files(folder):
        with safe_open(file, framework="pt") as stored:
            names = list(stored.keys())
        for name in names:
            with safe_open(file, framework="pt") as stored:
                weight = stored.get_tensor(name)
            yield name, weight
            del weight
