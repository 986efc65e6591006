"""What the adapters of tables share: reading, numbering and interleaving rows, damaged ones too.

An adapter says which columns it needs and what one published row becomes, and no more.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from siqvl.data.schema import Row, RowKind
from siqvl.data.sources.base import Items, Stream, damaged_row, label
from siqvl.data.sources.formats.record import DamagedRecord, Record, Unread
from siqvl.data.sources.formats.record import record as as_record
from siqvl.data.sources.reading.conversations import clean
from siqvl.data.sources.reading.picture_fields import Find, picture
from siqvl.data.sources.reading.tabular import (
    check_table,
    interleaved,
    is_local,
    known_size,
    records,
    require_columns,
    subsets_of,
)
from siqvl.data.sources.reading.tree import Tree
from siqvl.data.sources.values.cells import is_missing
from siqvl.errors import UserError
from siqvl.recipe import Source


@dataclass(frozen=True)
class Published:
    """One published row, and where it is from."""

    record: Record
    origin: Source
    source: str  # its name with the subset: "vqav2", "finevision/ai2d"
    number: int  # in its subset, from 0
    find: Find | None  # reads the picture of a name; None leaves it a name

    def __getitem__(self, column: str) -> Any:
        """The value of a column; None where the row does not have it."""
        return self.record.get(column)

    def holding(self, record: Record) -> Published:
        """The same row with another record; `dataclasses.replace` takes ten times as long."""
        return Published(record, self.origin, self.source, self.number, self.find)

    def id(self, column: str | None = None) -> str:
        """Source, split and number; or, in place of the number, the id that a column holds."""
        own = self[column] if column else None
        last = f"{self.number:07d}" if own is None else f"{own}"
        return f"{self.source}/{self.origin.split}/{last}".encode(errors="replace").decode()

    def text(self, column: str) -> str:
        """Text of a column; empty for anything that is no text."""
        return clean(self[column])

    def texts(self, column: str) -> list[str]:
        """A column of several texts; what is none is left out."""
        found = self[column]
        found = found if isinstance(found, list | tuple) else []
        return [text for one in found if (text := clean(one))]

    def picture(self, column: str = "image") -> Any:
        """Encoded bytes, or what is there in their place."""
        return picture(self[column], self.find)

    def pictures(self, column: str = "image") -> list[Any]:
        """All pictures of a column that holds none, one or several."""
        found = self[column]
        if is_missing(found):
            return []
        return self.found(found if isinstance(found, list | tuple) else [found])

    def found(self, values: Sequence[Any]) -> list[Any]:
        """Encoded bytes of some values of picture columns, or what is there in their place."""
        return [picture(one, self.find) for one in values]


@dataclass(frozen=True)
class Download:
    """An official download: rows of JSON files, and the folder or archive of their pictures."""

    load: Callable[[], Sequence[Any]]  # hundreds of megabytes: not done to check a source
    tree: Tree
    photo: Callable[[Record], str | None]  # the file name of a row's picture; None: it has none

    def record(self, found: Any) -> Record:
        """Returns a loaded row with the name of its picture as `image`.

        Raises:
            DamagedRecord: it is no object.
        """
        one = as_record(found)
        return {**one, "image": self.photo(one)}


Way = Callable[[Published], Row]


class TableAdapter:
    """Rows of a hub data set, of the same files on disk, or of an official download."""

    name: str
    kinds: frozenset[RowKind]
    needs: tuple[str, ...]  # columns that a table of this format has
    unanswered: tuple[str, ...] = ()  # splits whose answers are not published
    official: str = ""  # the files of an official download

    def row(self, kind: RowKind, one: Published) -> Row:
        """What a published row becomes.

        Raises:
            DamagedRecord: what is in it is not understood; the row is refused with this reason.
        """
        raise NotImplementedError

    def download(self, source: Source, tree: Tree) -> Download | None:
        """The official download in a folder or archive; None when it is not there."""
        return None

    def check(self, source: Source, kind: RowKind) -> None:
        """Raise UserError unless there is something to read, with the columns of this format."""
        if source.split in self.unanswered:
            raise UserError(
                f"{label(source)}: the answers of split `{source.split}` are not published; "
                "take another one"
            )
        if self._download(source):
            return
        table = self.table(source)
        check_table(table, self.official)
        if is_local(table):
            require_columns(table, self.needs)

    def rows(self, source: Source, kind: RowKind, seed: int) -> Items | Stream:
        """Items of an official download; otherwise a stream in which subsets take turns."""
        return self.read(source, kind, pictured=True)

    def questions(self, source: Source, seed: int) -> Items | Stream:
        """Evaluation rows whose pictures stay names where they are files."""
        return self.read(source, RowKind.EVALUATION, pictured=False)

    def read(
        self, source: Source, kind: RowKind, *, pictured: bool, through: int | None = None
    ) -> Items | Stream:
        """Rows with pictures that are files read, or left alone.

        Args:
            through: published rows of a subset of a table that are looked through at most.
        """
        ways = self.ways(source, kind)
        if download := self._download(source):
            found, find = download.load(), download.tree.picture if pictured else None

            def build(index: int) -> Row:
                number, way = divmod(index, len(ways))
                at = Published({}, source, self.title(source), number, find)
                return _row(partial(download.record, found[number]), at, ways[way])

            return Items(len(found) * len(ways), build)
        table = self.table(source)
        streams = [
            self._stream(table, subset, ways, pictured, through) for subset in subsets_of(table)
        ]

        def size() -> int | None:
            published = known_size(table)
            return None if published is None else published * len(ways)

        return Stream(interleaved(streams), size)

    def title(self, source: Source) -> str:
        """What the rows of a source are called."""
        return self.name

    def ways(self, source: Source, kind: RowKind) -> list[Way]:
        """What is made of a published row: one canonical row or, if asked for, several."""
        return [partial(self.row, kind)]

    def table(self, source: Source) -> Source:
        """The source as a published table."""
        return source

    def published(self, source: Source) -> Source | None:
        """The table that a source is read from; None where it is an official download."""
        return None if self._download(source) else self.table(source)

    def _download(self, source: Source) -> Download | None:
        if source.path is None or not is_local(source):
            return None
        path = Path(source.path)
        if not path.is_dir() and path.suffix != ".zip":
            return None
        return self.download(source, Tree(path))

    def _stream(
        self,
        source: Source,
        subset: str | None,
        ways: list[Way],
        pictured: bool,
        through: int | None,
    ) -> Iterator[Callable[[], Row]]:
        part = None if subset == "default" else subset  # the hub's name for having no subsets
        name = "/".join(filter(None, (self.title(source), part)))
        for number, (read, find) in enumerate(records(source, subset, through=through)):
            at = Published({}, source, name, number, find if pictured else None)
            for way in ways:
                yield partial(_row, read, at, way)


def _row(read: Unread, at: Published, way: Way) -> Row:
    try:
        return way(at.holding(read()))
    except DamagedRecord as error:
        return damaged_row(at.id(), str(error), source=at.source)
