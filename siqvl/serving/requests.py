"""Rows of a request -> conversations with decoded pictures; what is wrong is one sentence.

A row is judged as preparation judges one of training: same limits of pictures and texts, same
refusal of texts that hold turn marks.
"""

from __future__ import annotations

import base64
import binascii
import io
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from PIL import Image

from siqvl.data.preparation.checks import check_row
from siqvl.data.preparation.images import FORMATS
from siqvl.data.schema import Row, RowKind, message, sft_row
from siqvl.data.sources.reading.picture_marks import placed
from siqvl.errors import UserError
from siqvl.serving.settings import ServingSettings

COLUMNS = ("image", "path", "question", "messages")
#: Preparation wants a completion; this one stands for the answer to come.
TO_COME = "…"


def read_request(rows: Iterable[Mapping[str, Any]], settings: ServingSettings) -> list[Row]:
    """Reads rows with `prompt` (messages) and `images` (one decoded picture).

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
    return [_read(number, row, settings) for number, row in enumerate(found, start=1)]


def _read(number: int, values: Mapping[str, Any], settings: ServingSettings) -> Row:
    given = {name: value for name, value in values.items() if not _is_left_out(value)}
    try:
        if strangers := sorted(given.keys() - set(COLUMNS)):
            raise UserError(f"unknown column {strangers[0]}; there are {', '.join(COLUMNS)}")
        picture, messages = _picture(given, settings), _messages(given)
        row = sft_row(str(number), [picture], messages, TO_COME, source="request")
        checked = check_row(placed(row), RowKind.SFT, settings.limits)
        if checked.row is None:
            raise UserError(_reason(checked.reason, checked.detail))
        decoded = Image.open(io.BytesIO(checked.row["images"][0]["bytes"])).convert("RGB")
        return {"id": checked.id, "prompt": checked.row["prompt"], "images": [decoded]}
    except UserError as error:
        raise UserError(f"row {number}: {error.message}") from None


def _is_left_out(value: Any) -> bool:
    """None, or NaN: what pandas puts where a row has no such column."""
    return value is None or (isinstance(value, float) and value != value)


def _picture(given: Mapping[str, Any], settings: ServingSettings) -> bytes:
    """The encoded file."""
    if "path" in given and "image" in given:
        raise UserError("it has both `image` and `path`; send one picture")
    if "path" in given:
        return _read_file(given["path"], settings)
    if "image" not in given:
        raise UserError("it has no picture: send `image`, the base64 text of a picture file")
    text = given["image"]
    if not isinstance(text, str):
        raise UserError(f"`image` is {type(text).__name__}, expected the base64 text of a file")
    if text.startswith("data:"):
        text = text.partition(",")[2]
    try:
        data = base64.b64decode("".join(text.split()), validate=True)
    except (binascii.Error, ValueError):
        raise UserError(
            "`image` is no base64 text of a picture file (addresses are not fetched)"
        ) from None
    if not data:
        raise UserError("`image` is empty: send the base64 text of a picture file")
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


def _messages(given: Mapping[str, Any]) -> list[dict[str, Any]]:
    if ("question" in given) == ("messages" in given):
        raise UserError("it has to have either `question` or `messages`")
    if "question" in given:
        return [message("user", given["question"])]
    messages = given["messages"]
    if isinstance(messages, str | Mapping) or not isinstance(messages, Iterable):
        raise UserError(
            f"`messages` is {type(messages).__name__}, expected a list of "
            '{"role": …, "content": …}'
        )
    return list(messages)


def _reason(reason: str, detail: str) -> str:
    """What preparation says of a row, in the words of a request."""
    if reason in ("undecodable image", "no image data"):
        return f"the picture cannot be decoded; send one of {', '.join(FORMATS)}"
    if reason == "damaged record":  # what is wrong with its marks
        return detail
    said = f"{reason}: {detail}" if detail else reason
    return said.replace("prompt", "question or messages")
