"""Where the outbox of a recipe lies."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from siqvl.recipe import Recipe

#: Where a machine keeps outboxes, for recipes that do not say it; pods have it on their own disk.
FOLDER = "SIQVL_SPOOL"


@dataclass(frozen=True)
class OutboxPlace:
    """The folder of an outbox, and how long a task waits for a store that is away."""

    folder: Path
    patience: float  # seconds


def outbox_place(recipe: Recipe) -> OutboxPlace:
    """The folder that the recipe names, else SIQVL_SPOOL, else `spool` beside its results."""
    named = recipe.tracking.spool or os.environ.get(FOLDER)
    folder = Path(named) if named else Path(recipe.output_dir) / "spool"
    return OutboxPlace(folder.absolute(), recipe.tracking.patience_seconds)
