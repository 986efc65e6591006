"""WebDataset shards: in a tar archive, members of one name and several endings are one row.

Rows are what `datasets` reads: the name is the path up to the first dot of the file's name, the
column what comes after it, `__key__` the name. `.txt` is text, `.cls` a whole number, `.json` an
object, everything else bytes. In addition, the keys of a `.json` object are columns too, unless a
member is called so. Nothing is unpacked to disk; links and devices are not followed.
"""

from __future__ import annotations

import re
import tarfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import IO, Any

from siqvl.data.sources.formats.json_file import decoded
from siqvl.data.sources.formats.record import (
    BROKEN,
    DamagedRecord,
    Record,
    Unread,
    refuse,
    shown,
    unreadable,
)
from siqvl.data.sources.formats.text_file import opened
from siqvl.errors import UserError

LARGEST = 512 * 2**20  # bytes of a member
NAME = re.compile(r"((?:.*/|)[^.]+)[.]([^/]*)", re.DOTALL)  # as webdataset and `datasets` have it
HIDDEN = (".", "__")
TEXTS = frozenset({"txt", "text", "transcript"})
NUMBERS = frozenset({"cls", "cls2", "index", "inx", "id"})
OBJECTS = frozenset({"json", "jsn"})


@dataclass
class Sample:
    """Members that follow one another and have one name."""

    key: str
    members: dict[str, Member] = field(default_factory=dict)  # by column
    damage: str = ""

    def add(self, column: str, member: Member) -> None:
        if column in self.members:
            self.damage = f"it has two members `{column}`"
        self.members[column] = member


@dataclass
class Member:
    """A file in the archive: where its bytes are, or the bytes, or why they are not read."""

    start: int
    size: int
    content: bytes | None = None
    refused: str = ""


def tar_rows(file: Path) -> Iterator[Unread]:
    """The rows of a shard in their order; of a plain tar, bytes are read with the row.

    Raises:
        UserError: the archive is damaged or cut off, or members of one row lie apart.
    """
    for sample in _samples(file, load=file.name.lower().endswith(".gz")):
        yield partial(_row, file, sample)


def count_tar_rows(file: Path) -> int:
    """How many rows a shard has, by the headers of its members."""
    return sum(1 for _ in _samples(file, load=False))


def _samples(file: Path, *, load: bool) -> Iterator[Sample]:
    """Members grouped by name; a group of links alone is none."""
    known: set[str] = set()
    sample: Sample | None = None
    for member, column, key in _members(file, load):
        if sample is None or sample.key != key:
            if sample and _has_files(sample):
                yield sample
            if key in known:
                raise UserError(
                    f"{file}: the members of `{key}` do not follow one another: write the archive "
                    "sorted by name (`tar --sort=name`)"
                )
            known.add(key)
            sample = Sample(key)
        sample.add(column, member)
    if sample and _has_files(sample):
        yield sample


def _has_files(sample: Sample) -> bool:
    return any(member.start >= 0 for member in sample.members.values())


def _members(file: Path, load: bool) -> Iterator[tuple[Member, str, str]]:
    """(member, column, key) in the order of the archive, read forwards alone."""
    try:
        with opened(file) as stream, tarfile.open(fileobj=stream, mode="r:") as archive:
            while (info := archive.next()) is not None:
                archive.members.clear()  # type: ignore[attr-defined]  # it keeps them all
                name = NAME.fullmatch(info.name)
                hidden = info.name.rpartition("/")[2].startswith(HIDDEN)
                if name and not hidden and not info.isdir():
                    yield _member(info, stream, load), name.group(2), name.group(1)
            _check_end(file, stream, archive.offset)
    except (*BROKEN, tarfile.TarError) as error:
        raise unreadable(file, error) from None


def _member(info: tarfile.TarInfo, stream: IO[bytes], load: bool) -> Member:
    if not info.isreg() or info.issparse():
        return Member(-1, 0, refused="is no plain file, and not read")
    if info.size > LARGEST:
        return Member(
            info.offset_data,
            info.size,
            refused=f"has {info.size:,} bytes, {LARGEST:,} at most are read",
        )
    found = Member(info.offset_data, info.size)
    if load:
        stream.seek(found.start)
        found.content = stream.read(found.size)
    return found


def _check_end(file: Path, stream: IO[bytes], end: int) -> None:
    """Raise UserError unless the archive ends as one: for `tarfile`, any bad block is its end.

    Two blocks of zeros are the mark; of what follows all is zeros too.
    """
    if stream.tell() > end:  # the block that ended it has been read
        stream.seek(end)
    blocks = 0
    while block := stream.read(2**20):
        if block.count(0) != len(block):
            raise unreadable(
                file, f"after its byte {end:,} there is no member of a tar, or another archive"
            )
        blocks += len(block)
    if blocks < tarfile.BLOCKSIZE:
        raise unreadable(file, "it is cut off: the mark at the end of a tar is missing")


def _row(file: Path, sample: Sample) -> Record:
    if sample.damage:
        refuse(f"{sample.key}: {sample.damage}")
    row: Record = {}
    spread: Record = {}
    try:
        with open(file, "rb") as stream:
            for column, member in sample.members.items():
                if member.refused:
                    refuse(f"`{column}` {member.refused}")
                row[column] = value = _value(column, _content(stream, member))
                if column.lower() in OBJECTS and isinstance(value, dict):
                    spread |= value
    except (DamagedRecord, ValueError, RecursionError) as error:
        raise DamagedRecord(f"{sample.key}: {shown(error)}") from None
    except BROKEN as error:
        raise unreadable(file, error) from None
    return {**spread, **row, "__key__": sample.key}


def _content(stream: IO[bytes], member: Member) -> bytes:
    if member.content is not None:
        return member.content
    stream.seek(member.start)
    content = stream.read(member.size)
    if len(content) != member.size:
        raise EOFError("it has been cut off")
    return content


def _value(column: str, content: bytes) -> Any:
    kind = column.rpartition(".")[2].lower()
    try:
        if kind in TEXTS:
            return content.decode()
        if kind in NUMBERS:
            return int(content)
        if kind in OBJECTS:
            return decoded(content)
    except (DamagedRecord, ValueError, RecursionError) as error:
        raise DamagedRecord(f"`{column}`: {shown(error)}") from None
    return content
