"""Look at one source: read its first rows, check and encode them as for training, and judge them.

However large a source is, this takes seconds: what would need all of its rows is told by the first
ones, and that this is so is said.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from typing import TYPE_CHECKING

from siqvl.data import sources
from siqvl.data.preparation.checks import Checked, check_row
from siqvl.data.schema import MESSAGE_COLUMNS, Row, RowKind
from siqvl.errors import UserError
from siqvl.look.doubts import doubts_of
from siqvl.look.layout import layout_of, through
from siqvl.look.looked import Example, Looked, SeenRow
from siqvl.look.shown_tokens import placed_texts, refused_texts, sequences_of
from siqvl.look.subjects import Subject
from siqvl.page.pictures import data_uri
from siqvl.recipe import SFTStage, Source

if TYPE_CHECKING:
    from siqvl.data.encode import RowEncoder, Sides
    from siqvl.model.processing import SiQVLProcessor

JUDGED = 200  # rows that the rules are asked about,
SECONDS = 5.0  # or fewer, when those that are shown are there and so much time is over


def look_at(subject: Subject, rows: int, processor: SiQVLProcessor | None) -> Looked:
    """Look at the first rows of a source. What is wrong with it is said, never raised.

    Args:
        rows: how many are shown; of `JUDGED`, or of as many, is told what looks wrong.
        processor: of the model that would be trained; None shows no tokens.
    """
    looked = Looked(subject)
    try:
        sources.check(subject.source, subject.kind)
        limit = through(subject.source)
        found = sources.choices_are(subject.source, limit)
        source = sources.read_as(_bounded(subject.source, limit), found)
        looked.layout = layout_of(subject.source, found or "")
        _read(looked, source, rows, limit, processor)
    except UserError as error:
        looked.error = error.message
    looked.doubts = doubts_of(looked)
    return looked


def _bounded(source: Source, limit: int) -> Source:
    """The source without passing over more rows than can be in a few seconds."""
    is_table = sources.published_table(source) is not None
    return source.model_copy(update={"skip": 0}) if is_table and source.skip > limit else source


def _read(
    looked: Looked, source: Source, rows: int, limit: int, processor: SiQVLProcessor | None
) -> None:
    subject, count = looked.subject, max(rows, JUDGED)
    if source.skip < subject.source.skip:
        looked.layout.notes.append(
            f"rows are the very first ones, not those behind `skip: {subject.source.skip}`"
        )
    encoder = None if processor is None else _encoder(subject, processor)
    started = None
    unread = sources.first_unread(source, subject.kind, subject.seed, rows=count, through=limit)
    for read in unread:
        started = started or time.monotonic()  # opening a file is not reading its rows
        published = read()
        checked = check_row(published, subject.kind, subject.data)
        sides, not_trained = _encoded(checked, encoder, subject.stage)
        looked.rows.append(_seen(checked, subject.kind, sides, not_trained))
        if len(looked.examples) < rows:
            shown = _example(checked, subject, sides, not_trained, processor)
            shown = shown or _refused(checked, published, subject.kind)
            looked.examples.append(shown)
        elif time.monotonic() - started > SECONDS:
            return
    looked.ended = len(looked.rows) < count


def _encoder(subject: Subject, processor: SiQVLProcessor) -> RowEncoder:
    from siqvl.data.encode import RowEncoder

    stage = subject.stage
    return RowEncoder(
        processor,
        subject.kind,
        stage.max_images if stage else None,
        stage.learn_turns if stage else "last",
        subject.suffix,
        needs_picture=stage is not None and "language_model" not in stage.trainable,
    )


def _encoded(
    checked: Checked, encoder: RowEncoder | None, stage: SFTStage | None
) -> tuple[Sides, str]:
    """The sequences of a good row, and why training leaves it out."""
    if encoder is None or checked.row is None:
        return (), ""
    from siqvl.data.encode import TOO_LONG

    bare = {**checked.row, "images": [None] * len(checked.row["images"])}
    (found,) = encoder.rows([bare])
    if isinstance(found, str):
        return encoder.row(bare), found
    is_long = stage is not None and max(map(len, found)) > stage.max_length
    return found, TOO_LONG if is_long else ""


def _seen(checked: Checked, kind: RowKind, sides: Sides, not_trained: str) -> SeenRow:
    row = checked.row
    if row is None:
        return SeenRow(checked.id, checked.left_out, checked.reason, checked.detail)
    asked = row["question"] if kind is RowKind.EVALUATION else row["prompt"][-1]["content"]
    return SeenRow(
        checked.id,
        content=checked.content,
        pictures=tuple(checked.image_hashes),
        question=asked,
        answer=checked.answer,
        choices=tuple(_choices(row)),
        texts=tuple(_said(row, kind)),
        tokens=max(map(len, sides), default=0),
        not_trained=not_trained,
    )


def _choices(row: Row) -> list[str]:
    """The options of a stored row: of one to learn from they stand in `meta`."""
    found = row["choices"] if "choices" in row else json.loads(row["meta"]).get("choices")
    return [str(one) for one in found] if isinstance(found, list) else []


def _said(row: Row, kind: RowKind) -> Iterator[str]:
    if kind is RowKind.EVALUATION:
        yield from (row["question"], *row["answers"], *row["choices"])
    for column in MESSAGE_COLUMNS[kind]:
        yield from (turn["content"] for turn in row[column])


def _example(
    checked: Checked,
    subject: Subject,
    sides: Sides,
    not_trained: str,
    processor: SiQVLProcessor | None,
) -> Example | None:
    """A good row as it is shown; None for any other."""
    row = checked.row
    if row is None:
        return None
    shown = [] if processor is None else sequences_of(sides, subject.kind, processor)
    return Example(
        checked.id,
        pictures=[data_uri(image["bytes"]) for image in row["images"]],
        texts=placed_texts(row, subject.kind, subject.suffix),
        sequences=shown,
        about=_about(row),
        wrong=not_trained and f"not trained on: {not_trained}",
    )


def _refused(checked: Checked, published: Row, kind: RowKind) -> Example:
    """A row that is no good, with what it says as far as that can be told, and why."""
    if checked.left_out:
        wrong = f"left out: {checked.left_out}"
    else:
        wrong = ": ".join(filter(None, [f"bad: {checked.reason}", checked.detail]))
    return Example(checked.id, [], refused_texts(published, kind), [], [], wrong)


def _about(row: Row) -> list[tuple[str, str]]:
    """The answers that count as right and the options of a question."""
    fields = {name: row.get(name, []) for name in ("answers", "choices")}
    return [(name, " | ".join(values)) for name, values in fields.items() if values]
