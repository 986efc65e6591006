"""Tables called `metadata`, as `datasets`' ImageFolder has them beside pictures.

Their columns `file_name` and `<column>_file_name` name a picture each, `file_names` and
`<column>_file_names` several: they are read as `image`, `<column>`, `images` and `<column>`.
"""

from __future__ import annotations

import re
from pathlib import Path, PurePosixPath
from typing import Any

from siqvl.data.sources.formats.table_file import DamagedRecord, Record, Unread
from siqvl.data.sources.reading.splits import says_a_split

METADATA = re.compile(r"metadata\.(csv|jsonl|parquet)")
ENDINGS = (("file_name", "image"), ("file_names", "images"))


def is_metadata(file: Path) -> bool:
    """Whether a table is called as ImageFolder's are."""
    return METADATA.fullmatch(file.name) is not None


def pictured(read: Unread, *, split_is_said: bool) -> Record:
    """A row of such a table, with its pictures under the names they are read by.

    Args:
        split_is_said: whether the table's own path says a split. If none does, a picture in the
            folder of a split (`test/0.png`) would belong to a split that its row is not of.

    Raises:
        DamagedRecord: there is such a picture, or the row itself cannot be read.
    """
    record: dict[str, Any] = {}
    for column, value in read().items():
        name = read_as(column)
        if name != column and not split_is_said:
            _refuse_split(value)
        record[name] = value
    return record


def read_as(column: str) -> str:
    """The name under which a column of such a table is read."""
    for ending, name in ENDINGS:
        if column == ending or column.endswith(f"_{ending}"):
            return column[: -len(ending) - 1] or name
    return column


def _refuse_split(value: Any) -> None:
    for name in value if isinstance(value, list) else [value]:
        if isinstance(name, str) and any(map(says_a_split, PurePosixPath(name).parts[:-1])):
            raise DamagedRecord(
                f"the folder of its picture {name[:80]} says a split, but its table does not: put "
                "a metadata file into the folder of each split"
            )
