"""The page of a stage that is being trained, written anew every so many steps.

It is a file on this machine, so that whoever shows it, in whatever process, needs no part of the
training. What is logged before a kill is on the page of the run that goes on, too.
"""

from __future__ import annotations

import io
import logging
import time
from pathlib import Path
from typing import Any

from PIL import Image
from transformers import TrainerCallback, TrainerState

from siqvl.checkpoint import training_history
from siqvl.errors import one_line
from siqvl.page.pictures import data_uri
from siqvl.recipe import Recipe, Stage
from siqvl.report.loss_page import Shown, training_page
from siqvl.tracking.sample_table import Answered

logger = logging.getLogger(__name__)


class LivePage(TrainerCallback):
    """Writes the page in the first of several processes: at the first log, then at each that comes
    `tracking.page_every` steps after the page before, and when training ends.

    A disk that is full is said once; training goes on.

    Args:
        place: the file.

    Attributes:
        seconds: that the pages took so far, one each.
    """

    def __init__(self, place: Path, stage: Stage, recipe: Recipe) -> None:
        self.place = place
        self.seconds: list[float] = []
        self._stage = stage
        self._recipe = recipe
        self._samples: list[Shown] = []
        self._pictures: dict[str, list[str]] = {}  # as addresses, of rows by their id
        self._asked_at = 0
        self._written_at: int | None = None
        self._failed = False

    def answered(self, step: int, answered: list[Answered]) -> None:
        """Take what the model answers after `step` steps, for the pages from now on."""
        for one in answered:  # the same rows each time, whose pictures are made small once
            if one.id not in self._pictures:
                self._pictures[one.id] = [] if one.picture is None else [_address(one.picture)]
        self._samples = [
            Shown(one.id, self._pictures[one.id], one.question, one.gold, one.answer)
            for one in answered
        ]
        self._asked_at = step

    def on_log(self, args: Any, state: TrainerState, control: Any, **kwargs: Any) -> None:
        every = self._recipe.tracking.page_every
        if every is None or not state.is_world_process_zero or state.global_step == 0:
            return
        if self._written_at is None or state.global_step - self._written_at >= every:
            self.write(state)

    def write(self, state: TrainerState) -> None:
        """Write the page of what was logged so far."""
        start = time.perf_counter()
        self._written_at = state.global_step
        page = training_page(
            self._recipe.name,
            self._stage,
            training_history(state.log_history),
            progress=f"step {state.global_step:,} of {state.max_steps:,}",
            samples=self._samples,
            asked_at=self._asked_at,
        )
        try:
            self.place.parent.mkdir(parents=True, exist_ok=True)
            # whole or not at all, but not synced: after a power cut nobody misses it
            partial = self.place.with_name(f".{self.place.name}.partial")
            partial.write_text(page, encoding="utf-8")
            partial.replace(self.place)
        except OSError as error:
            if not self._failed:
                logger.warning("%s cannot be written: %s", self.place, one_line(error))
            self._failed = True
        self.seconds.append(time.perf_counter() - start)


def _address(picture: Image.Image) -> str:
    """A picture as an address that a page needs no other file for."""
    stream = io.BytesIO()
    picture.convert("RGB").save(stream, "PNG")
    return data_uri(stream.getvalue())
