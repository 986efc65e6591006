"""The files of a data set's folder: of its folders, and of those that are linked into it."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

from siqvl.data.sources.formats.table_file import has_ending
from siqvl.errors import UserError

IGNORED = (".", "__")  # how folders begin that `datasets` does not look into


def files_below(folder: Path) -> Iterator[Path]:
    """Every file below a folder that is not hidden, in no certain order.

    Links to folders elsewhere are followed; those to folders of the same data set are not, as what
    is there would come twice.

    Raises:
        UserError: a table is a link that leads nowhere: its rows would be missing.
    """
    root = os.path.realpath(folder)
    for place, inner, names in os.walk(folder, followlinks=True):
        inner[:] = [
            name
            for name in inner
            if not name.startswith(IGNORED) and not _is_own(place, name, root)
        ]
        for name in names:
            file = Path(place, name)
            if name.startswith("."):
                continue
            if has_ending(name) and not file.exists():
                raise UserError(
                    f"{file} is a link to {os.readlink(file)}, where nothing is: fetch the data "
                    "set again, or remove the link"
                )
            yield file


def _is_own(place: str, name: str, root: str) -> bool:
    """Whether a folder is a link into the data set itself, or around it."""
    path = os.path.join(place, name)
    if not os.path.islink(path):
        return False
    target = Path(os.path.realpath(path))
    return target.is_relative_to(root) or Path(root).is_relative_to(target)
