"""Answers of a model in training, as the files that MLflow's own pages show.

`samples.json` is what `MlflowClient.log_table` writes, pictures included: its page stands in the
run's artifacts, and beside other runs' in the experiment's evaluation view. Below `images/` there
is what `log_image(key=, step=)` writes: cards that the run's charts page through by step.
"""

from __future__ import annotations

import json
import tempfile
import time
import uuid
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from siqvl.tracking.runs import RunLog
from siqvl.tracking.sample_card import draw_card

if TYPE_CHECKING:
    from PIL.Image import Image

TABLE = "samples.json"
PICTURES = "table_images/samples"
CARDS = "images"
COLUMNS = ("step", "sample", "picture", "question", "gold", "answer", "trained_on")
#: What makes MLflow's pages look for them; `log_table` and `log_image` set the same.
TABLE_TAG = {"mlflow.loggedArtifacts": json.dumps([{"path": TABLE, "type": "table"}])}
CARDS_TAG = {"mlflow.loggedImages": "True"}
PICTURE_SIDE = 512  # pixels at most of a picture in the table
PREVIEW_SIDE = 256  # of the small copy that the page loads first, as MLflow makes it


class Answered(NamedTuple):
    """One row and what the model made of it."""

    id: str
    picture: Image | None  # the first, if it has several
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

    def add(self, step: int, answered: Sequence[Answered], *, cards: bool = True) -> None:
        """Log the answers of a step; the table is written anew, with all steps so far."""
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name)
            for number, one in enumerate(answered, start=1):
                picture = self._picture(folder, one)
                about = (one.question, one.gold, one.answer, one.trained_on)
                self._rows.append([step, one.id, picture, *about])
                if cards:
                    _write_card(folder / CARDS, number, step, one)
            content = {"columns": COLUMNS, "data": self._rows}
            text = json.dumps(content, ensure_ascii=False)
            (folder / TABLE).write_text(text, encoding="utf-8")
            self._log.artifact(folder)
        self._log.tags({**TABLE_TAG, **(CARDS_TAG if cards else {})})

    def _picture(self, folder: Path, one: Answered) -> dict[str, str]:
        """The table's cell; the files are written once a row, however many steps show it."""
        name = uuid.uuid5(uuid.NAMESPACE_URL, one.id).hex
        files = {"filepath": f"{PICTURES}/{name}.png"}
        files["compressed_filepath"] = f"{PICTURES}/{name}.webp"
        if name not in self._written:
            (folder / PICTURES).mkdir(parents=True, exist_ok=True)
            for file, side in zip(files.values(), (PICTURE_SIDE, PREVIEW_SIDE), strict=True):
                small = _shown(one.picture)
                small.thumbnail((side, side))
                small.save(folder / file)
            self._written.add(name)
        return {"type": "image", **files}


def _shown(picture: Image | None) -> Image:
    """White where there is none: MLflow's page takes every cell of such a column for a picture."""
    from PIL import Image

    return Image.new("RGB", (8, 8), "white") if picture is None else picture.convert("RGB")


def _write_card(folder: Path, number: int, step: int, one: Answered) -> None:
    """A picture with its question and answer, under the name that MLflow's charts look for.

    Its small copy is as large as the card itself: text would not survive MLflow's 256 pixels.
    """
    folder.mkdir(exist_ok=True)
    card = draw_card(
        one.picture,
        [("", one.question), ("gold", one.gold), (f"step {step:,}", one.answer or "(nothing)")],
    )
    now = int(time.time() * 1000)
    name = f"sample {number:02d}+step+{step}+timestamp+{now}+{uuid.uuid4()}"
    card.save(folder / f"{name}.png")
    card.save(folder / f"{name}+compressed.webp", quality=80)
