"""Pictures of published rows: encoded bytes, or a name that says why there are none.

A picture that is not there stays text: preparation quarantines its row, and says that text.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

Find = Callable[[str], bytes | str]
URL = re.compile(r"[a-z][a-z0-9+.-]*://", re.IGNORECASE)


@dataclass(frozen=True)
class Beside:
    """Where the pictures that a local table names may lie."""

    folder: Path  # of the table
    root: Path  # of the data set: nothing outside of it is read

    def find(self, name: str) -> bytes | str:
        """The picture of that name, in the table's folder, the data set's, or a folder in these.

        A name may not lead out of the data set's folder. Links in it may: they are its owner's, and
        the hub's own cache is made of them.
        """
        outside = True
        root = os.path.abspath(self.root)
        for folder in self._folders:
            file = Path(os.path.abspath(folder / name))
            if not file.is_relative_to(root):
                continue
            outside = False
            try:
                if file.is_file():
                    return file.read_bytes()
            except (OSError, ValueError) as error:  # not allowed, too long, a NUL in it
                return f"{name} ({error})"
        return f"{name} (it is outside of {self.root}, and not read)" if outside else name

    @cached_property
    def _folders(self) -> list[Path]:
        places = list(dict.fromkeys((self.folder, self.root)))
        inner = [path for place in places for path in sorted(place.iterdir()) if path.is_dir()]
        return places + inner


def coco_file_name(image_id: Any, prefix: str = "") -> str:
    """Returns the file name of a COCO photo, `<prefix><id in 12 digits>.jpg`; no id stays text."""
    return f"{prefix}{image_id:012d}.jpg" if isinstance(image_id, int) else str(image_id)


def picture(value: Any, find: Find | None) -> Any:
    """Encoded bytes of a published picture: bytes, a path, or an object of both as on the hub.

    Args:
        find: reads the picture of a name; None where rows hold their pictures (the hub).
    """
    if isinstance(value, dict):
        value = value["bytes"] if value.get("bytes") else value.get("path")
    if not isinstance(value, str):
        return value
    if URL.match(value):
        return f"{value} (URLs are not fetched: download the picture and give its path)"
    return find(value) if find else value
