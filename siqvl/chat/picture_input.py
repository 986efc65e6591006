"""Pictures that a user names: files, and addresses on the web where they are allowed."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from PIL import Image

from siqvl.data.preparation.images import FORMATS, BadRow, stored_pixels
from siqvl.data.sources.reading.picture_fields import content
from siqvl.errors import UserError
from siqvl.files import expanded
from siqvl.serving.fetch_picture import fetch_picture

URL = re.compile(r"https?://", re.IGNORECASE)
LIMIT_BYTES = 32 * 2**20  # of a picture on the web
SECONDS = 20.0  # that it may take


@dataclass(frozen=True)
class Picture:
    """A decoded picture and what it is called."""

    name: str
    image: Image.Image

    def __str__(self) -> str:
        return f"{self.name}, {self.image.width} × {self.image.height}"


@dataclass(frozen=True)
class Pictures:
    """What pictures may be.

    Attributes:
        max_pixels: larger ones are refused before they are decoded.
        allow_urls: whether addresses on the web are fetched.
    """

    max_pixels: int
    allow_urls: bool = False

    def read(self, place: str) -> Picture:
        """Reads and decodes one.

        Args:
            place: a path, or an http address.

        Raises:
            UserError: it is not there, not allowed, or no picture.
        """
        data = self._fetched(place) if URL.match(place) else _file(place)
        name = place.rstrip("/").rpartition("/")[2] or place
        try:
            return Picture(name, stored_pixels(data, self.max_pixels))
        except BadRow as error:
            if error.reason in ("undecodable image", "no image data"):
                reason = f"no picture that is read; these are: {', '.join(FORMATS)}"
            else:
                reason = ": ".join(filter(None, [error.reason, error.detail]))
            raise UserError(f"{place}: {reason}") from None

    def _fetched(self, url: str) -> bytes:
        if not self.allow_urls:
            raise UserError(f"{url} is not fetched: start with `--allow-urls` to have it fetched")
        return fetch_picture(url, limit_bytes=LIMIT_BYTES, timeout=SECONDS)


def _file(place: str) -> bytes:
    path: Path = expanded(place)
    try:
        found = content(path, place)
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise UserError(f"{place} cannot be read ({reason})") from None
    if isinstance(found, str):  # why it is not read
        raise UserError(found)
    return found
