"""A line as it is typed: a command, a question, and the pictures that were dragged into it."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import unquote, urlsplit

from siqvl.data.sources.reading.picture_fields import ENDINGS
from siqvl.errors import UserError
from siqvl.files import expanded

#: Commands -> what they do, as `/help` says it.
COMMANDS = {
    "image": "FILE  show it with the next question; a path that is dragged here does the same",
    "reset": "begin a new conversation; the system prompt stays",
    "system": "TEXT  what the model is told first; without a text its own again",
    "temperature": "X  0 writes the likeliest tokens; above, they are drawn",
    "top-p": "X  draw among the likeliest tokens that together have this probability",
    "seed": "N  of what is drawn",
    "max-tokens": "N  of an answer",
    "help": "this list",
    "quit": "end, as Ctrl-D does; Ctrl-C stops an answer",
}
COMMAND = re.compile(r"/([a-z][a-z-]*)(?:\s+(.*))?", re.DOTALL)
#: A path as terminals write one that is dragged: quoted, with backslashes, or as an address.
DRAGGED = re.compile(
    r"""(?<!\S)(?:'(?P<single>[^']+)'|"(?P<double>[^"]+)"|(?P<bare>(?:file://|https?://|/|~)"""
    r"""(?:\\.|[^\s\\])+))(?!\S)""",
    re.IGNORECASE,
)
FILE = "file://"


@dataclass(frozen=True)
class Typed:
    """What a line says.

    Attributes:
        command: empty for a question.
        text: of the question, or what follows the command.
        pictures: paths and addresses in their order.
    """

    command: str = ""
    text: str = ""
    pictures: tuple[str, ...] = ()


def read_line(line: str) -> Typed:
    """Reads a line; a path with a picture at its end counts as dragged where it is a file.

    Raises:
        UserError: it begins like a command that there is not.
    """
    line = line.strip()
    said = COMMAND.fullmatch(line)
    if said and said[1] in COMMANDS:
        rest = (said[2] or "").strip()
        if said[1] == "image":
            return Typed("image", pictures=tuple(_named(rest)))
        return Typed(said[1], rest)
    pictures: list[str] = []

    def taken(found: re.Match[str]) -> str:
        place = _place(found)
        if not _is_picture(place):
            return found[0]
        pictures.append(place)
        return ""

    text = DRAGGED.sub(taken, line)
    if said and not pictures:
        raise UserError(f"there is no command /{said[1]}; /help lists those that there are")
    return Typed("", " ".join(text.split()) if pictures else text, tuple(pictures))


def _named(text: str) -> list[str]:
    """The pictures behind `/image`: one path as it is, or several as terminals write them."""
    if not text:
        raise UserError("/image needs a file: /image photo.jpg")
    if expanded(text).is_file():
        return [text]
    found = [*re.finditer(r"""'[^']+'|"[^"]+"|(?:\\.|[^\s\\])+""", text)]
    return [_unwritten(one[0].strip("'\"") if one[0][0] in "'\"" else one[0]) for one in found]


def _place(found: re.Match[str]) -> str:
    quoted = found["single"] or found["double"]
    return quoted if quoted and not quoted.startswith(FILE) else _unwritten(quoted or found["bare"])


def _unwritten(text: str) -> str:
    """A path without what a terminal adds to it."""
    if text.lower().startswith(FILE):
        return unquote(urlsplit(text).path)
    if text.lower().startswith(("http://", "https://")):
        return text
    return re.sub(r"\\(.)", r"\1", text)


def _is_picture(place: str) -> bool:
    if place.lower().startswith(("http://", "https://")):
        return _has_ending(urlsplit(place).path)
    try:
        return _has_ending(place) and expanded(place).is_file()
    except (OSError, ValueError):  # a name that is too long, or has a NUL in it
        return False


def _has_ending(name: str) -> bool:
    return Path(name).suffix.lower().removeprefix(".") in ENDINGS
