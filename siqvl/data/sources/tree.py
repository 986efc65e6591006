"""Read files by name from a folder or, without unpacking it, from a zip archive."""

from __future__ import annotations

import zipfile
from pathlib import Path

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
        except (KeyError, OSError, zipfile.BadZipFile) as error:
            raise UserError(f"{self.path} has no readable file {name} ({error})") from None
