"""`history.json` of a checkpoint: what its trainer logged, step by step, for curves to be drawn."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from siqvl.errors import UserError

HISTORY = "history.json"
#: One logging step: `step` (optimizer steps), `loss`, `learning_rate`, `grad_norm`, …; None for a
#: figure that was not finite.
Logged = dict[str, float | None]


def training_history(log_history: Iterable[dict[str, Any]]) -> list[Logged]:
    """The numbers of `TrainerState.log_history` by step, without the summary of the whole run.

    The trainer's state is part of what an interrupted run continues from, so this covers the steps
    before the interruption too.
    """
    return [
        {
            name: value if math.isfinite(value) else None
            for name, value in entry.items()
            if isinstance(value, int | float)
        }
        for entry in log_history
        if "step" in entry and "train_runtime" not in entry
    ]


def write_history(history: list[Logged], directory: Path) -> None:
    """Write `history.json`, a step a line."""
    lines = ",\n".join(json.dumps(entry, allow_nan=False) for entry in history)
    (directory / HISTORY).write_text(f"[\n{lines}\n]\n" if lines else "[]\n", encoding="utf-8")


def read_history(directory: Path) -> list[Logged]:
    """What was logged while this checkpoint was trained; empty for one that kept no history.

    Raises:
        UserError: the file is damaged.
    """
    path = directory / HISTORY
    if not path.is_file():
        return []
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise UserError(f"{path} is damaged ({error}); train the stage again") from None
