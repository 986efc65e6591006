"""What a source adapter is, and the checks that all of them share."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, overload, runtime_checkable

from siqvl.data.schema import Row, RowKind
from siqvl.errors import UserError
from siqvl.recipe import Source

VARIABLE = re.compile(r"\$\{(\w+)\}")


@runtime_checkable
class SourceAdapter(Protocol):
    """Reads one published format. The path of the source it is given is already resolved.

    Whatever is in a published row, reading it does not raise: a field that is missing or of a wrong
    type comes out empty, a picture that is not there as text, what cannot be parsed as a
    `damaged_row`, what is not wanted as `schema.left_out_row`. Preparation counts them by reason.
    """

    kinds: frozenset[RowKind]

    def check(self, source: Source, kind: RowKind) -> None:
        """Raise UserError for anything that can be told before work starts."""

    def rows(self, source: Source, kind: RowKind, seed: int) -> Items | Stream | Iterator[Row]:
        """Canonical rows: Items where any of them can be had at once, otherwise in their order."""


@runtime_checkable
class QuestionAdapter(Protocol):
    """An adapter that can leave out the pictures of evaluation rows, which is far quicker."""

    def questions(self, source: Source, seed: int) -> Items | Stream | Iterator[Row]:
        """The evaluation rows that `rows` gives, equal in all but `images`.

        Of these only the number tells: something stands for each.
        """


@dataclass(frozen=True)
class Items(Sequence[Row]):
    """Rows that are built when they are asked for."""

    size: int
    build: Callable[[int], Row]

    def __len__(self) -> int:
        return self.size

    @overload
    def __getitem__(self, index: int) -> Row: ...
    @overload
    def __getitem__(self, index: slice) -> list[Row]: ...
    def __getitem__(self, index: int | slice) -> Row | list[Row]:
        chosen = range(self.size)[index]
        return self.build(chosen) if isinstance(chosen, int) else [*map(self.build, chosen)]


@dataclass(frozen=True)
class Stream:
    """Rows in their order, each read when it is called: those passed over cost next to nothing."""

    unread: Iterator[Callable[[], Row]]
    size: Callable[[], int | None] = lambda: None  # None: only known once they are all read

    def __iter__(self) -> Iterator[Row]:
        return (read() for read in self.unread)


def damaged_row(id: str, reason: str, *, source: str) -> Row:
    """A published row that cannot be read: preparation quarantines it with this reason."""
    return {"id": id, "source": source, "damaged": reason}


def label(source: Source) -> str:
    """How a source is named in an error."""
    return f"source `{source.kind}`"


def resolve(source: Source) -> Source:
    """The source with ${VARIABLES} and ~ in `path` and `pictures` filled in.

    Raises:
        UserError: a variable is not set.
    """

    def value(match: re.Match[str]) -> str:
        name = match.group(1)
        if not os.environ.get(name):
            raise UserError(
                f"{label(source)}: path {match.string} needs the environment variable {name}, "
                f"which is not set; export {name}=<folder> and try again"
            )
        return os.environ[name]

    places = {"path": source.path, "pictures": source.pictures}
    return source.model_copy(
        update={
            key: os.path.expanduser(VARIABLE.sub(value, place))
            for key, place in places.items()
            if place is not None
        }
    )


def local_path(source: Source) -> Path:
    """The existing file or folder of a source that only reads local data.

    Raises:
        UserError: no path is given, or nothing is there.
    """
    if source.path is None:
        raise UserError(f"{label(source)} needs a `path`: the folder or archive it is read from")
    path = Path(source.path)
    if not path.exists():
        raise UserError(f"{label(source)}: {path} does not exist; correct `path`")
    return path


def require_split(source: Source, known: Sequence[str]) -> None:
    """Raise UserError unless the split is one of the known ones."""
    if source.split not in known:
        raise UserError(
            f"{label(source)}: unknown split `{source.split}`; it has {', '.join(known)}"
        )


def require_subsets(source: Source, known: Sequence[str]) -> None:
    """Raise UserError unless all subsets are known ones."""
    for subset in source.subsets:
        if subset not in known:
            raise UserError(
                f"{label(source)}: unknown subset `{subset}`; it has {', '.join(known) or 'none'}"
            )
