"""The messages of a request -> a row whose text is judged, and what stands for its pictures."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from siqvl.data.preparation.checks import check_prompt
from siqvl.data.preparation.images import BadRow
from siqvl.data.schema import Row
from siqvl.data.sources.formats.table_file import DamagedRecord
from siqvl.data.sources.reading.picture_marks import placed
from siqvl.data.sources.reading.turns import PICTURES, read_turns
from siqvl.recipe import DataPrep
from siqvl.serving.server.refusals import Refused

WEB = ("http://", "https://")


def read_row(messages: Sequence[dict[str, Any]], limits: DataPrep) -> Row:
    """Reads messages as published conversations are read, and judges them as preparation does.

    Returns:
        `id`, `prompt` (messages), and `images`: of each picture the bytes of its file, or its
        address on the web, in the order of their places.

    Raises:
        Refused: what is wrong, in a sentence.
    """
    said = [_renamed(one) for one in messages]
    try:
        turns = read_turns(said, "messages")
    except DamagedRecord as error:
        raise Refused(400, str(error), param="messages") from None
    _check_parts(messages)
    pictures = [one for turn in turns for one in turn.pictures]
    row = placed({"id": "request", "prompt": [turn.message for turn in turns], "images": pictures})
    if "damaged" in row:
        raise Refused(400, str(row["damaged"]), param="messages")
    for number, one in enumerate(row["images"], start=1):
        if isinstance(one, bytes) or (isinstance(one, str) and one.lower().startswith(WEB)):
            continue
        raise Refused(400, f"picture {number} is {_instead(one)}", param="messages")
    try:
        prompt = check_prompt(row["prompt"], len(row["images"]), limits)
    except BadRow as error:
        sentence = f"{error.reason}: {error.detail}" if error.detail else error.reason
        raise Refused(400, sentence, param="messages") from None
    return {"id": row["id"], "prompt": prompt, "images": row["images"]}


def _check_parts(messages: Sequence[dict[str, Any]]) -> None:
    """Refuses parts that show the next of a row's pictures: a request has none beside its parts."""
    for turn, message in enumerate(messages, start=1):
        content = message.get("content")
        for number, part in enumerate(content if isinstance(content, list) else [], start=1):
            kind = part.get("type")
            if kind in PICTURES and all(part.get(key) is None for key in PICTURES[kind]):
                raise Refused(
                    400,
                    f"part {number} of turn {turn} of messages holds no picture: send "
                    '{"type": "image_url", "image_url": {"url": "data:image/png;base64,…"}}',
                    param="messages",
                )


def _instead(picture: Any) -> str:
    """What stands where a picture or its address should."""
    if isinstance(picture, str) and picture[:5].lower() == "data:":
        return "a data URI without the whole base64 text of a file (data:image/png;base64,…)"
    return "neither a data URI (data:image/png;base64,…) nor an http(s) address"


def _renamed(message: dict[str, Any]) -> dict[str, Any]:
    """A message as rows have it: OpenAI's newer models call a system's turn a developer's.

    Raises:
        Refused: it has what no template of this model shows.
    """
    if message.get("name") is not None:
        raise Refused(400, "`name` of a message is not shown to this model", param="messages")
    if message.get("role") == "developer":
        return message | {"role": "system"}
    return message
