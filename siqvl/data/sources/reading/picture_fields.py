"""Pictures of published rows: encoded bytes, or a name that says why there are none.

A picture that is not there stays text: preparation quarantines its row, and says that text.
"""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from siqvl.composed_text import other_forms
from siqvl.data.sources.formats.table_file import is_table
from siqvl.data.sources.reading.splits import splits_said

Find = Callable[[str], bytes | str]
#: How files of pictures that are read are called.
ENDINGS = ("jpg", "jpeg", "png", "webp", "bmp", "gif", "tif", "tiff", "avif", "jp2")
LARGEST = 512 * 2**20  # bytes of a picture's file
URL = re.compile(r"[a-z][a-z0-9+.-]*://", re.IGNORECASE)


@dataclass(frozen=True)
class Beside:
    """Where the pictures that a local table names may lie."""

    folder: Path  # of the table
    root: Path  # of the data set: nothing outside of it is read

    def find(self, name: str) -> bytes | str:
        """The picture of that name, as it is written or, where none is there, in another form.

        A Mac writes an `é` decomposed, most others composed: see `siqvl.composed_text`. Where both
        are there, and the name is neither, they have to be the same picture.
        """
        found = self._find(name)
        if found != name:
            return found
        others = {form: self._find(form) for form in other_forms(name)}
        found_others = {one for one in others.values() if isinstance(one, bytes)}
        if len(found_others) > 1:
            return f"{name} (which one? files of this name differ in how it is encoded)"
        return found_others.pop() if found_others else name

    def _find(self, name: str) -> bytes | str:
        """The picture of a name, looked for from the table's folder up to the data set's.

        In each of them it may lie where the name says, or so in one of the folders in it. Where two
        of these have different pictures of that name, nothing tells which one is meant, and neither
        is taken. Folders that hold another part of the data set are left out (`_is_anothers`):
        parts number their pictures alike, and one that is missing must not be another part's. A
        name may not lead out of the data set's folder. Links in it may: they are its owner's, and
        the hub's own cache is made of them.
        """
        outside, anothers = True, ""
        try:
            for folder, inner in self._places:
                here = os.path.join(folder, name)
                inside = self._holds(here)
                if inside and is_file(here):
                    return content(here, name)
                below = [one / name for one in inner if self._holds(os.path.join(one, name))]
                outside = outside and not inside and not below
                if found := [file for file in below if is_file(file)]:
                    if own := [file for file in found if not self._is_anothers(file, name)]:
                        return self._the_one(name, own)
                    anothers = anothers or os.path.relpath(found[0], self.root)
        except (OSError, ValueError) as error:  # not allowed, too long, a NUL in it
            return f"{name} ({error})"
        if anothers:
            return (
                f"{name} (there is none but {anothers}, in the folder of another part: say the "
                "folder too)"
            )
        return f"{name} (it is outside of {self.root}, and not read)" if outside else name

    def _is_anothers(self, file: Path, name: str) -> bool:
        """Whether a picture lies in a folder that is not the table's part of the data set.

        That is a folder beside the table's which has a table of its own, or says another split.
        """
        parts = len(Path(name).parts)
        folder = file.parents[parts - 1] if parts <= len(file.parents) else file.parent
        if folder.is_relative_to(self.folder) or self.folder.is_relative_to(folder):
            return False
        if folder not in self._parts:
            said = splits_said(folder.name)
            self._parts[folder] = bool(said and self._splits and not said & self._splits) or any(
                map(is_table, folder.iterdir())
            )
        return self._parts[folder]

    @cached_property
    def _parts(self) -> dict[Path, bool]:
        """Folder -> whether it is of another part, of those that were asked for."""
        return {}

    @cached_property
    def _splits(self) -> set[str]:
        """What the folders of the table's path say."""
        inner = self.folder.relative_to(self.root) if self.root in self._up else Path()
        return {split for part in inner.parts for split in splits_said(part)}

    @property
    def _up(self) -> list[Path]:
        return [self.folder, *self.folder.parents]

    def _the_one(self, name: str, found: list[Path]) -> bytes | str:
        first = content(found[0], name)
        if len({file.stat().st_size for file in found}) == 1 and all(
            content(file, name) == first for file in found[1:]
        ):
            return first
        where = " and ".join(os.path.relpath(file, self.root) for file in found[:2])
        return f"{name} (which one? {where} differ: say the folder too)"

    def _holds(self, file: str) -> bool:
        """Whether the data set's folder holds a file."""
        return os.path.join(os.path.abspath(file), "").startswith(self._root)

    @cached_property
    def _root(self) -> str:
        """How the paths begin of all that the data set's folder holds, of the folder itself too."""
        return os.path.join(os.path.abspath(self.root), "")

    @cached_property
    def _places(self) -> list[tuple[Path, list[Path]]]:
        """Each folder from the table's upwards, with the folders in it."""
        up = self._up
        up = up[: up.index(self.root) + 1] if self.root in up else [self.folder, self.root]
        return [(one, sorted(path for path in one.iterdir() if path.is_dir())) for one in up]


def is_file(path: str | Path) -> bool:
    """Whether a file is there.

    Raises:
        OSError: nothing can tell: a folder that may not be read, a name that is too long.
    """
    try:
        return stat.S_ISREG(os.stat(path).st_mode)
    except (FileNotFoundError, NotADirectoryError):
        return False


def content(file: str | Path, name: str) -> bytes | str:
    """The bytes of a picture's file; its name and the reason where there are none, or too many.

    Raises:
        OSError: it cannot be read.
    """
    with open(file, "rb") as stream:
        return why_unread(os.fstat(stream.fileno()).st_size, name) or stream.read()


def why_unread(size: int, name: str) -> str:
    """A picture's name and why a file of this many bytes is not read; empty where it is."""
    if not size:
        return f"{name} (the file is empty)"
    if size > LARGEST:
        return (
            f"{name} (the file has {size / 2**20:,.0f} MiB, and pictures of at most "
            f"{LARGEST // 2**20} MiB are read)"
        )
    return ""


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
