"""Rows of a request -> conversations with decoded pictures; what is wrong is one sentence.

A row is judged as preparation judges one of training: same limits of pictures and texts, same
refusal of texts that hold turn marks, same marks of places, same typed parts.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from PIL import Image

from siqvl.data.preparation.checks import check_row
from siqvl.data.schema import TO_COME, Row, RowKind, message, sft_row
from siqvl.data.sources.formats.table_file import DamagedRecord
from siqvl.data.sources.reading.picture_marks import placed
from siqvl.data.sources.reading.turns import read_turns
from siqvl.errors import UserError
from siqvl.serving.picture_decoding import decoded, pixels_of
from siqvl.serving.settings import ServingSettings

COLUMNS = ("image", "images", "path", "question", "messages")
#: Columns that hold pictures, of which a row has one at most.
PICTURES = ("image", "images", "path")
#: A small picture counts as so many pixels of a request: it takes memory all the same.
LEAST_PIXELS = 2**20


def read_request(
    rows: Iterable[Mapping[str, Any]], settings: ServingSettings, image_processor: Any = None
) -> list[Row]:
    """Reads rows with `prompt` (messages) and `images` (decoded pictures).

    Pictures are decoded one after the other; their sum of pixels over the request is limited.

    Args:
        image_processor: the one of the model's processor; each picture is kept as small as that
            makes it. None: pictures stay as they are.

    Raises:
        UserError: no rows, too many, or one that cannot be answered; it is named by its number.
    """
    found = list(rows)
    if not found:
        raise UserError(f"the request has no rows with columns of {', '.join(COLUMNS)}")
    if len(found) > settings.max_rows:
        raise UserError(
            f"the request has {len(found):,} rows, at most {settings.max_rows:,} are answered"
        )
    reader = _Reader(settings, image_processor)
    return [reader.read(number, row) for number, row in enumerate(found, start=1)]


class _Reader:
    """Reads the rows of one request, and sums up the pixels of their pictures."""

    def __init__(self, settings: ServingSettings, image_processor: Any) -> None:
        self._settings, self._image_processor = settings, image_processor
        self._pixels = 0

    def read(self, number: int, values: Mapping[str, Any]) -> Row:
        given = {name: value for name, value in values.items() if not _is_left_out(value)}
        try:
            if strangers := sorted(given.keys() - set(COLUMNS)):
                raise UserError(f"unknown column {strangers[0]}; there are {', '.join(COLUMNS)}")
            messages, inner = _messages(given)
            pictures = _pictures(given, inner, self._settings)
            row = placed(sft_row(str(number), pictures, messages, TO_COME, source="request"))
            # Texts first: a picture costs far more. Stand-ins, as pictures are judged by `decoded`.
            blank = Image.new("RGB", (1, 1))
            judged = {**row, "images": [blank] * len(row["images"])} if "images" in row else row
            checked = check_row(judged, RowKind.SFT, self._settings.limits)
            if checked.row is None:
                raise UserError(_reason(checked.reason, checked.detail))
            images = [self._decoded(data) for data in row["images"]]
            return {"id": checked.id, "prompt": checked.row["prompt"], "images": images}
        except UserError as error:
            raise UserError(f"row {number}: {error.message}") from None

    def _decoded(self, data: bytes) -> Image.Image:
        self._pixels += max(pixels_of(data), LEAST_PIXELS)
        if self._pixels > self._settings.max_request_pixels:
            raise UserError(
                f"with this row the pictures of the request have {self._pixels:,} pixels (a small "
                f"one counts as {LEAST_PIXELS:,}), at most {self._settings.max_request_pixels:,} "
                "are read; send fewer rows at a time, or smaller pictures"
            )
        return decoded(data, self._image_processor, self._settings.max_image_pixels)


def _is_left_out(value: Any) -> bool:
    """None, or NaN: what pandas puts where a row has no such column."""
    return value is None or (isinstance(value, float) and value != value)


def _pictures(given: Mapping[str, Any], inner: list[Any], settings: ServingSettings) -> list[bytes]:
    """The encoded files of a row's pictures; none for a row of text alone."""
    columns = [name for name in PICTURES if name in given]
    if len(columns) > 1:
        known = " and ".join(f"`{name}`" for name in columns)
        raise UserError(f"it has both {known}; send its pictures in one of them")
    if columns and inner:
        raise UserError(
            f"it has pictures in its messages and in `{columns[0]}`; send them in one place"
        )
    if inner:
        return [_file(value, "a picture of `messages`") for value in inner]
    if not columns:
        return []
    (column,) = columns
    if column == "path":
        return [_read_file(given["path"], settings)]
    if column == "image":
        return [_file(given["image"], "`image`")]
    some = given["images"]
    if isinstance(some, str | bytes | Mapping) or not isinstance(some, Iterable):
        raise UserError(f"`images` is {type(some).__name__}, expected a list of base64 texts")
    return [_file(value, f"picture {n} of `images`") for n, value in enumerate(some, start=1)]


def _file(value: Any, what: str) -> bytes:
    """The file of a picture that a request holds as base64 text, or as a data URI."""
    if isinstance(value, bytes):
        return value
    if not isinstance(value, str):
        raise UserError(f"{what} is {type(value).__name__}, expected the base64 text of a file")
    text = value.partition(",")[2] if value[:5].lower() == "data:" else value
    try:
        data = base64.b64decode("".join(text.split()), validate=True)
    except (binascii.Error, ValueError):
        raise UserError(
            f"{what} is no base64 text of a picture file (addresses are not fetched)"
        ) from None
    if not data:
        raise UserError(f"{what} is empty: send the base64 text of a picture file")
    return data


def _read_file(path: Any, settings: ServingSettings) -> bytes:
    if not settings.allow_paths:
        raise UserError(
            "`path` is read only where the model was loaded with allow_paths: true in its "
            "model_config; send the picture itself as `image`"
        )
    try:
        return Path(path).read_bytes()
    except (OSError, TypeError, ValueError):
        raise UserError(f"no file {path} can be read") from None


def _messages(given: Mapping[str, Any]) -> tuple[list[dict[str, Any]], list[Any]]:
    """What is said, as text with `<image>` marks, and the pictures that typed parts hold."""
    if ("question" in given) == ("messages" in given):
        raise UserError("it has to have either `question` or `messages`")
    if "question" in given:
        return [message("user", given["question"])], []
    messages = given["messages"]
    if isinstance(messages, str | Mapping) or not isinstance(messages, Iterable):
        raise UserError(
            f"`messages` is {type(messages).__name__}, expected a list of "
            '{"role": …, "content": …}'
        )
    turns = list(messages)
    if not any(isinstance(turn, Mapping) and _is_typed(turn.get("content")) for turn in turns):
        return turns, []
    try:
        found = read_turns([_with_pictures_named(turn) for turn in turns], "messages")
    except DamagedRecord as error:
        raise UserError(str(error)) from None
    return [turn.message for turn in found], [one for turn in found for one in turn.pictures]


def _is_typed(content: Any) -> bool:
    return isinstance(content, list | tuple)


def _with_pictures_named(turn: Any) -> Any:
    """transformers' `{"type": "image", "base64": …}`, as the parts of published rows have it."""
    if not isinstance(turn, Mapping) or not _is_typed(turn.get("content")):
        return turn
    parts = turn["content"]
    held = [isinstance(part, Mapping) and "base64" in part for part in parts]
    named = [
        {**part, "image": part["base64"]} if has else part
        for part, has in zip(parts, held, strict=True)
    ]
    return {**turn, "content": named}


def _reason(reason: str, detail: str) -> str:
    """What preparation says of a row, in the words of a request."""
    if reason == "damaged record":  # what is wrong with its marks
        return detail
    said = f"{reason}: {detail}" if detail else reason
    return said.replace("prompt", "question or messages")
