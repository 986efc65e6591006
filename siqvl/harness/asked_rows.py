"""What a harness asks -> a row, from which a prompt is made as in an evaluation of ours.

A question that a harness gives with its pictures beside the text is read as sources read a
published row: marks in the text (`<image>`, `<image 1>`) are the pictures' places where they fit,
otherwise the pictures stand before it. Where the harness itself puts pictures between texts, these
are their places, and marks that stand in the texts as well are left out.
"""

from __future__ import annotations

import base64
import binascii
import io
from collections.abc import Mapping, Sequence
from itertools import dropwhile
from pathlib import Path
from typing import Any

from PIL import Image

from siqvl.composed_text import composed
from siqvl.data.encode import shown_with
from siqvl.data.image_tokens import IMAGE_MARK, neutralise_image_tokens, without_marks
from siqvl.data.preparation.images import BadRow, upright_rgb
from siqvl.data.schema import Row, message
from siqvl.data.sources.reading.picture_marks import placed
from siqvl.errors import UserError, one_line

#: A part of a message: a text, or a picture (a Pillow image, the path of a file, or its data URL).
Part = Mapping[str, Any]


def asked_row(name: str, text: str, pictures: Sequence[Any]) -> Row:
    """Makes the row of one user message whose pictures a harness gives beside its text.

    Args:
        name: what the row is called in errors.
        pictures: Pillow images, paths of files, or data URLs.

    Raises:
        UserError: a picture that cannot be read.
    """
    return _row(name, [message("user", _text(text))], pictures)


def conversation_row(name: str, messages: Sequence[Mapping[str, Any]]) -> Row:
    """Makes the row of messages `{"role": …, "content": …}`, as chat templates take them.

    A content is a text or a list of parts: `{"type": "text", "text": …}` or
    `{"type": "image", "url": …}`.

    Raises:
        UserError: a part of another type, a picture that no user shows or that cannot be read, or
            a last message that is no user's.
    """
    turns = [(turn["role"], _parts(turn["content"])) for turn in messages]
    for role, parts in turns:
        for part in parts:
            if part["type"] not in ("text", "image"):
                raise UserError(
                    f"{name} has a part of type {part['type']}: SiQ-VL reads text and pictures"
                )
            if part["type"] == "image" and role != "user":
                raise UserError(f"{name} shows a picture in a message of role {role}, not user")
    if not turns or turns[-1][0] != "user":
        raise UserError(f"{name} ends with no message of a user, so that there is none to answer")
    pictures = [part["url"] for _, parts in turns for part in parts if part["type"] == "image"]
    if _before_all_text(turns):
        return _row(name, [message(role, _joined(parts)) for role, parts in turns], pictures)
    return _row(name, [message(role, _marked(parts)) for role, parts in turns], pictures)


def _parts(content: str | Sequence[Part]) -> list[Part]:
    return [{"type": "text", "text": content}] if isinstance(content, str) else list(content)


def _before_all_text(turns: Sequence[tuple[str, Sequence[Part]]]) -> bool:
    """Whether no picture comes after a word of a user."""
    said = [part["type"] for role, parts in turns if role == "user" for part in parts]
    return "image" not in dropwhile(lambda kind: kind == "image", said)


def _joined(parts: Sequence[Part]) -> str:
    return "".join(_text(part["text"]) for part in parts if part["type"] == "text")


def _marked(parts: Sequence[Part]) -> str:
    """The text with a mark for each picture, and none of those that it had."""
    return "".join(
        IMAGE_MARK if part["type"] == "image" else without_marks(_text(part["text"]))
        for part in parts
    )


def _text(text: str) -> str:
    """A text as preparation stores it."""
    return neutralise_image_tokens(composed(text))[0]


def _row(name: str, prompt: list[dict[str, str]], pictures: Sequence[Any]) -> Row:
    images = [_picture(name, picture) for picture in pictures]
    row = placed({"id": name, "prompt": prompt, "images": images})
    if "damaged" in row:  # more marks than pictures, or numbers of others
        row = {"id": name, "prompt": prompt, "images": images}
    return {**shown_with(row, len(images)), "images": row["images"]}


def _picture(name: str, value: Any) -> Image.Image:
    """A picture as preparation stores it: upright, RGB, on white where it is transparent."""
    try:
        return upright_rgb(value if isinstance(value, Image.Image) else _opened(value))
    except (BadRow, OSError, TypeError, ValueError, Image.DecompressionBombError) as error:
        raise UserError(f"{name} shows a picture that cannot be read: {one_line(error)}") from None


def _opened(value: Any) -> Image.Image:
    if isinstance(value, str) and value.startswith("data:"):
        try:
            encoded = base64.b64decode(value.partition(",")[2], validate=True)
        except binascii.Error:
            raise ValueError("its data URL is no base64 text") from None
        return Image.open(io.BytesIO(encoded))
    if not isinstance(value, str | Path):
        raise TypeError(
            f"expected a Pillow image or the path of a file, got {type(value).__name__}"
        )
    if "://" in str(value):
        raise ValueError("addresses are not fetched")
    return Image.open(value)
