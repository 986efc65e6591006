"""Rows -> portions that can be put to the model, read while it answers the one before.

Of a picture nothing is kept but what the tower sees of it, so that memory is bounded by the rows of
two portions and one picture as it was published, however large.
"""

from __future__ import annotations

import io
import json
from collections.abc import Callable, Hashable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from itertools import count
from typing import TYPE_CHECKING, Any, TypeVar

from PIL import Image
from xxhash import xxh3_128

from siqvl.answers.question_source import Questions
from siqvl.data.encode import encode_prompt
from siqvl.data.preparation.checks import check_row
from siqvl.data.schema import TO_COME, Row, RowKind
from siqvl.errors import one_line
from siqvl.generation.beginnings import Prompt
from siqvl.page.pictures import data_uri

if TYPE_CHECKING:
    import torch

    from siqvl.model.processing import SiQVLProcessor
    from siqvl.recipe import DataPrep

Read = Callable[[], Row]
T = TypeVar("T")


@dataclass
class ReadyRow:
    """One row to be asked, or why it is not.

    Attributes:
        expected: published answers; None where there are none.
        error: empty where there is a prompt.
    """

    id: str
    pictures: int = 0
    question: str = ""
    expected: list[str] | None = None
    prompt: Prompt | None = None
    error: str = ""


@dataclass
class Portion:
    """Rows that are asked together.

    Attributes:
        start: the number of its first row.
        size: how many there are.
        digest: of what was published in each of them, one after the other.
        rows: all of them; none where its answers are there already.
        pixels: of their pictures, [3, image_size, image_size], by name.
        shown: number of a row -> small copies of its pictures, as a page has them.
    """

    number: int
    start: int
    size: int
    digest: str
    rows: list[ReadyRow] = field(default_factory=list)
    pixels: dict[Hashable, torch.Tensor] = field(default_factory=dict)
    shown: dict[int, list[str]] = field(default_factory=dict)


@dataclass(frozen=True)
class Reader:
    """Reads portions. Which rows share one follows from the rows and `most` alone.

    Args:
        limits: of one row, as preparation has them.
        longest: tokens that a prompt may have.
        most: rows of a portion, and about as many pictures.
        known: the digest of a portion that is answered already, by its number.
        shown: the first so many rows are to be shown on a page.
    """

    questions: Questions
    processor: SiQVLProcessor
    limits: DataPrep
    longest: int
    most: int
    known: Callable[[int], str | None]
    shown: int

    def portions(self) -> Iterator[Portion]:
        """Reads one after the other; of those that are answered already nothing is decoded."""
        unread = self.questions.unread()
        start = 0
        for number in count():
            known = self.known(number)
            reads, portion = self._read(unread, Portion(number, start, 0, ""), known is None)
            if not reads:
                return
            if known is not None and portion.digest != known:
                again = iter(reads)
                _, portion = self._read(again, Portion(number, start, 0, ""), True)
            yield portion
            start += portion.size

    def _read(
        self, unread: Iterator[Read], portion: Portion, prepared: bool
    ) -> tuple[list[Read], Portion]:
        digests: list[str] = []
        pictures = 0
        reads: list[Read] = []
        while len(reads) < self.most and pictures < self.most:
            read = next(unread, None)
            if read is None:
                break
            row = read()
            reads.append(read)
            digests.append(row_digest(row))
            images = row.get("images") if isinstance(row, dict) else None
            pictures += len(images) if isinstance(images, list) else 0
            at = portion.start + len(reads) - 1
            if at < self.shown:
                portion.shown[at] = [*_small(images or [])]
            if prepared:
                portion.rows.append(self._ready(row, portion.pixels))
        portion.size, portion.digest = len(reads), " ".join(digests)
        return reads, portion

    def _ready(self, row: Row, pixels: dict[Hashable, torch.Tensor]) -> ReadyRow:
        """Checks and encodes a row; whatever is wrong with it is said in it."""
        try:
            return self._encoded(row, pixels)
        except Exception as error:  # a row is never worth a lost run
            return ReadyRow(_text(row, "id") or "?", error=one_line(error))

    def _encoded(self, row: Row, pixels: dict[Hashable, torch.Tensor]) -> ReadyRow:
        is_answered = self.questions.are_answered
        if isinstance(row, dict) and row.get("answers") == []:  # of this one row none is known
            row, is_answered = row | {"answers": [TO_COME]}, False
        checked = check_row(row, self.questions.kind, self.limits)
        if checked.row is None:
            reason = f"left out: {checked.left_out}" if checked.left_out else checked.reason
            error = ": ".join(filter(None, [reason, checked.detail]))
            return ReadyRow(checked.id, question=_text(row, "question"), error=error)
        good = checked.row
        asked = good["question"] if "question" in good else good["prompt"][-1]["content"]
        ready = ReadyRow(checked.id, len(good["images"]), asked)
        ready.expected = self._expected(good) if is_answered else None
        names = tuple(good["image_hashes"])
        encoded = encode_prompt({**good, "images": [None] * len(names)}, self.processor)
        if len(encoded) > self.longest:
            ready.error = (
                f"too long: question and pictures take {len(encoded):,} tokens, the model reads "
                f"{self.longest:,} beside its answer"
            )
            return ready
        for name, image in zip(names, good["images"], strict=True):
            if name not in pixels:
                pixels[name] = self._pixels(image["bytes"])
        ready.prompt = Prompt.asked(encoded.input_ids, names, self.processor.image_token_id)
        return ready

    def _expected(self, row: Row) -> list[str]:
        if self.questions.kind is RowKind.EVALUATION:
            return list(row["answers"])
        completion = row["completion" if self.questions.kind is RowKind.SFT else "chosen"]
        return [completion[0]["content"]]

    def _pixels(self, data: bytes) -> torch.Tensor:
        picture = Image.open(io.BytesIO(data)).convert("RGB")
        found = self.processor.image_processor(images=[picture], return_tensors="pt")
        return found["pixel_values"][0]


def row_digest(row: Any) -> str:
    """Digests what was published in a row, its pictures undecoded."""
    digest = xxh3_128()
    images = row.get("images") if isinstance(row, dict) else None
    known = {key: value for key, value in row.items() if key != "images"} if images else row
    digest.update(json.dumps(known, sort_keys=True, default=repr).encode(errors="replace"))
    for image in images or []:
        digest.update(b"\0")
        if isinstance(image, Image.Image):
            digest.update(f"{image.mode} {image.size}".encode())
            image = image.tobytes()
        digest.update(image if isinstance(image, bytes) else repr(image).encode())
    return digest.hexdigest()


def ahead(items: Iterator[T]) -> Iterator[T]:
    """Yields items, of which the next is made in a thread meanwhile."""
    with ThreadPoolExecutor(1, thread_name_prefix="read-ahead") as thread:
        coming = thread.submit(next, items, None)
        while (item := coming.result()) is not None:
            coming = thread.submit(next, items, None)
            yield item


def _small(images: list[Any]) -> Iterator[str]:
    for image in images:
        if isinstance(image, Image.Image):
            stream = io.BytesIO()
            image.convert("RGB").save(stream, "PNG")
            image = stream.getvalue()
        if isinstance(image, bytes):
            try:
                yield data_uri(image)
            except Exception:  # a picture that does not decode, of which its row tells
                continue


def _text(row: Any, column: str) -> str:
    found = row.get(column) if isinstance(row, dict) else None
    return found if isinstance(found, str) else ""
