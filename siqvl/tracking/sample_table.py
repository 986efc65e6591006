"""Answers of a model in training, as the files that MLflow's own pages show.

`samples.json` is what `MlflowClient.log_table` writes, pictures included: its page stands in the
run's artifacts, and beside other runs' in the experiment's artifact view. Below `images/` there is
what `log_image(key=, step=)` writes: a sheet of cards that the run's charts page through by step.
"""

from __future__ import annotations

import json
import tempfile
import time
import uuid
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from PIL import Image

from siqvl.tracking.runs import RunLog
from siqvl.tracking.sample_card import draw_card, draw_sheet, fitted

TABLE = "samples.json"
PICTURES = "table_images/samples"
SHEETS = "images"
#: MLflow's page shows the first without scrolling.
COLUMNS = ("step", "picture", "question", "gold", "answer", "trained_on", "sample")
#: What makes MLflow's pages look for them; `log_table` and `log_image` set the same.
TABLE_TAG = {"mlflow.loggedArtifacts": json.dumps([{"path": TABLE, "type": "table"}])}
SHEETS_TAG = {"mlflow.loggedImages": "True"}
PICTURE_SIDE = 512  # pixels at most of a picture in the table
PREVIEW_SIDE = 256  # of the small copy that the page loads first, as MLflow makes it


class Answered(NamedTuple):
    """One row and what the model made of it."""

    id: str
    picture: Image.Image | None  # the first, if it has several
    question: str
    gold: str
    answer: str
    trained_on: int  # how often training has seen the row by now


class SampleTable:
    """The table of one run, which grows with every step that answers are added for."""

    def __init__(self, log: RunLog) -> None:
        self._log = log
        self._rows: list[list[Any]] = []
        self._written: set[str] = set()  # pictures that are among the artifacts

    def add(self, step: int, answered: Sequence[Answered], *, sheet: bool = True) -> None:
        """Log the answers of a step; the table is written anew, with all steps so far."""
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name)
            rows: list[list[Any]] = []
            for one in answered:
                about = (one.question, one.gold, one.answer, one.trained_on, one.id)
                rows.append([step, self._picture(folder, one), *about])
            if sheet:
                _write_sheet(folder / SHEETS, step, answered)
            self._rows = rows + self._rows  # the newest first: the page shows three at a time
            content = {"columns": COLUMNS, "data": self._rows}
            text = json.dumps(content, ensure_ascii=False)
            (folder / TABLE).write_text(text, encoding="utf-8")
            self._log.artifact(folder)
        self._log.tags({**TABLE_TAG, **(SHEETS_TAG if sheet else {})})

    def _picture(self, folder: Path, one: Answered) -> dict[str, str]:
        """The table's cell; the files are written once a row, however many steps show it."""
        name = uuid.uuid5(uuid.NAMESPACE_URL, one.id).hex
        files = {"filepath": f"{PICTURES}/{name}.png"}
        files["compressed_filepath"] = f"{PICTURES}/{name}.webp"
        if name not in self._written:
            (folder / PICTURES).mkdir(parents=True, exist_ok=True)
            picture = _shown(one.picture)
            fitted(picture, PREVIEW_SIDE).save(folder / files["compressed_filepath"])
            picture.thumbnail((PICTURE_SIDE, PICTURE_SIDE))
            picture.save(folder / files["filepath"])
            self._written.add(name)
        return {"type": "image", **files}


def _shown(picture: Image.Image | None) -> Image.Image:
    """White where there is none: MLflow's page takes every cell of such a column for a picture."""
    return Image.new("RGB", (8, 8), "white") if picture is None else picture.convert("RGB")


def _write_sheet(folder: Path, step: int, answered: Sequence[Answered]) -> None:
    """The answers of a step, under the name that MLflow's charts look for.

    One sheet, not a chart for each: above every image MLflow writes all parameters of the run. The
    small copy is as large as the sheet itself: text would not survive MLflow's 256 pixels.
    """
    folder.mkdir()
    when = f"step {step:,}"
    cards = [
        draw_card(
            one.picture, [("", one.question), ("gold", one.gold), (when, one.answer or "(nothing)")]
        )
        for one in answered
    ]
    sheet = draw_sheet(cards)
    name = f"samples+step+{step}+timestamp+{int(time.time() * 1000)}+{uuid.uuid4()}"
    sheet.save(folder / f"{name}.png")
    sheet.save(folder / f"{name}+compressed.webp", quality=80)
