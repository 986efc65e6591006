"""Read files by name from a folder or, without unpacking it, from a zip archive."""

from __future__ import annotations

import json
import zipfile
import zlib
from collections.abc import Callable
from functools import cached_property
from pathlib import Path, PurePosixPath
from typing import Any

from siqvl.composed_text import alike
from siqvl.data.sources.reading.picture_fields import why_unread
from siqvl.errors import UserError


class Tree:
    """A folder or zip archive; names are relative, with forward slashes."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._zip: zipfile.ZipFile | None = None
        if path.is_dir():
            return
        try:
            self._zip = zipfile.ZipFile(path)
        except (zipfile.BadZipFile, OSError) as error:
            raise UserError(f"{path} is neither a folder nor a zip archive ({error})") from None

    def names(self) -> list[str]:
        """Every file, sorted."""
        if self._zip:
            return sorted(info.filename for info in self._zip.infolist() if not info.is_dir())
        files = (file for file in self.path.rglob("*") if file.is_file())
        return sorted(file.relative_to(self.path).as_posix() for file in files)

    def read(self, name: str) -> bytes:
        """The content of one file.

        Raises:
            UserError: it is not there, or the archive is damaged.
        """
        try:
            return self._zip.read(name) if self._zip else (self.path / name).read_bytes()
        except (KeyError, OSError, RuntimeError, zipfile.BadZipFile, zlib.error) as error:
            # RuntimeError: a member that is encrypted
            raise UserError(f"{self.path} has no readable file {name} ({error})") from None

    def json(self, name: str, object_hook: Callable[[dict[str, Any]], Any] | None = None) -> Any:
        """The content of a JSON file; `object_hook` as in `json.loads`.

        Raises:
            UserError: it is not there, or no JSON.
        """
        try:
            return json.loads(self.read(name), object_hook=object_hook)
        except (ValueError, RecursionError) as error:
            raise UserError(f"{self.path}: {name} is not valid JSON ({error})") from None

    def json_list(
        self,
        name: str,
        key: str | None = None,
        *,
        of: str,
        object_hook: Callable[[dict[str, Any]], Any] | None = None,
    ) -> list[Any]:
        """Returns the list that a JSON file holds, or that its object has under a key.

        Args:
            of: the data set that the file should be of, for the message.

        Raises:
            UserError: it is not there, no JSON, or has no such list.
        """
        found, wrong = self.json(name, object_hook), "is no list"
        if key is not None:
            found = found.get(key) if isinstance(found, dict) else None
            wrong = f"has no list `{key}`"
        if not isinstance(found, list):
            raise UserError(f"{self.path}: {name} {wrong}; is it {of}'s?")
        return found

    def find(self, file_name: str) -> str | None:
        """Where the one file of this name, or the first in order of folders, lies.

        Where there is none, it may be of a name that is the same in Unicode's composed form; None
        if two names are.

        Args:
            file_name: with as many of its folders as are known, as in `train/1/image.png`.
        """
        inner = PurePosixPath(file_name)
        places = self._places.get(inner.name, [])
        if not places and not file_name.isascii():
            names = alike(inner.name, self._places)
            places = self._places[names[0]] if len(names) == 1 else []
            inner = inner.with_name(names[0]) if places else inner
        return next((place for place in places if f"/{place}".endswith(f"/{inner}")), None)

    def picture(self, file_name: str) -> bytes | str:
        """The picture of this name, wherever it lies; text that says why there is none."""
        name = self.find(file_name)
        return file_name if name is None else self.picture_at(name)

    def picture_at(self, name: str) -> bytes | str:
        """The content of one file; text that says why it is not read."""
        try:
            return why_unread(self._size(name), name) or self.read(name)
        except UserError as error:
            return f"{name} ({error.message})"

    def _size(self, name: str) -> int:
        """Bytes of one file; 1, for `read` to say why, where it is not there."""
        try:
            if self._zip:
                return self._zip.getinfo(name).file_size
            return (self.path / name).stat().st_size
        except (KeyError, OSError):
            return 1

    @cached_property
    def _places(self) -> dict[str, list[str]]:
        places: dict[str, list[str]] = {}
        for name in self.names():
            places.setdefault(PurePosixPath(name).name, []).append(name)
        return places
