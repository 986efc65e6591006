"""What is asked: the rows of a data set as sources read them, or pictures with one question."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from siqvl.data import sources
from siqvl.data.schema import TO_COME, Row, RowKind, evaluation_row
from siqvl.data.sources.base import Items, resolve
from siqvl.data.sources.formats.table_file import tables_among
from siqvl.data.sources.reading.folder import files_below
from siqvl.data.sources.reading.picture_fields import ENDINGS, content
from siqvl.data.sources.reading.picture_marks import read_placed
from siqvl.data.sources.reading.tabular import columns
from siqvl.data.sources.tables.fields import Fields
from siqvl.errors import UserError
from siqvl.files import expanded
from siqvl.recipe import Source

SEED = 0  # of which rows are taken, where a source chooses
#: A choice that there is in every list of them, by how answers are read. None of these two readings
#: changes how a question lists its choices.
FIRST_CHOICE = {"letter": "A", "index1": "1", "index0": "0"}


@dataclass(frozen=True)
class Questions:
    """Rows that a model is asked about.

    Attributes:
        kind: what a row is: a question, a conversation whose answer is known, or a pair.
        unread: opens the rows anew, each of which is read when it is called.
        size: how many there are; None where only reading them all would tell.
        are_answered: whether rows hold the answers that count as right.
        said: all beside their content that decides what is asked.
    """

    kind: RowKind
    unread: Callable[[], Iterator[Callable[[], Row]]]
    size: Callable[[], int | None]
    are_answered: bool
    said: dict[str, Any]


def questions_of(
    source: Source, kind: RowKind | None = None, question: str | None = None
) -> Questions:
    """Finds out how a data set is asked about.

    Args:
        source: as a recipe would name it; the answers of a table may be missing.
        kind: what its rows are read as; None: as questions where they can be, else as
            conversations or pairs, whose last user turn is answered.
        question: is asked about every row in place of its own, whose answers are none of this one
            then; a folder of pictures without a table needs it.

    Raises:
        UserError: there is nothing to ask, or not this.
    """
    if source.kind != "table":
        if question is not None:
            raise UserError(
                f"kind `{source.kind}` has questions of its own; leave `--question` out, or read "
                "it as a table"
            )
        return _first_readable([(one, source, True) for one in _kinds(kind)])
    files = pictures_alone(expanded(source.path or ""))
    if files:
        if question is None:
            raise UserError(
                f"{source.path} has pictures and no table of questions: say what is asked about "
                "each of them with `--question`"
            )
        return _of_pictures(expanded(source.path or ""), files, question, source)
    kinds = _kinds(kind)
    if question is not None:
        if has_question(source):  # whose answers are to another question
            kinds = []
        source = _without(source, "question", question)
        kinds = [one for one in kinds if one is not RowKind.PREFERENCE]
    forms = [(one, source, True) for one in kinds]
    if kind in (None, RowKind.EVALUATION):
        forms.insert(1, (RowKind.EVALUATION, _unanswered(source), False))
    return _first_readable(forms)


def has_question(source: Source) -> bool:
    """Whether the rows of a table have questions of their own."""
    resolved = resolve(source)
    return Fields(resolved).has("question", columns(resolved))


def _kinds(kind: RowKind | None) -> list[RowKind]:
    return [kind] if kind else [RowKind.EVALUATION, RowKind.SFT, RowKind.PREFERENCE]


def _without(source: Source, field: str, constant: str) -> Source:
    """A table of which a field is the same in every row."""
    columns = {name: column for name, column in source.columns.items() if name != field}
    constants = source.constants | {field: constant}
    return source.model_copy(update={"columns": columns, "constants": constants})


def _unanswered(source: Source) -> Source:
    """A table whose answers are missing, or are not looked at."""
    reading = source.choices_are if source.choices_are in FIRST_CHOICE else "index0"
    without = _without(source, "answer", FIRST_CHOICE[reading or "index0"])
    return without.model_copy(update={"choices_are": reading})


def _first_readable(forms: list[tuple[RowKind, Source, bool]]) -> Questions:
    """The first form that a source's columns fit; what is wrong is told of the barest."""
    errors = []
    for kind, source, are_answered in forms:
        try:
            sources.check(source, kind)
        except UserError as error:
            errors.append(error)
            continue
        source = sources.read_as(source, sources.choices_are(source))
        # where the rows lie is not what they are, and their content is looked at itself
        elsewhere = {"path", "pictures", "revision", "weight", "max_samples"}
        said = {"kind": kind.value, "source": source.model_dump(mode="json", exclude=elsewhere)}
        return Questions(
            kind,
            partial(sources.unread, source, kind, SEED),
            partial(sources.size, source, kind, SEED),
            are_answered,
            said,
        )
    raise errors[min(1, len(errors) - 1)]


def pictures_alone(path: Path) -> list[Path]:
    """The pictures of a folder without a table, in order of their names, or the one of a file."""
    if path.is_file():
        return [path] if _is_picture(path) else []
    if not path.is_dir():
        return []
    files = [*files_below(path)]
    if tables_among(files):
        return []
    return sorted(filter(_is_picture, files))


def _is_picture(file: Path) -> bool:
    return file.suffix.lower().removeprefix(".") in ENDINGS


def _of_pictures(path: Path, files: list[Path], question: str, source: Source) -> Questions:
    root = path.parent if path.is_file() else path
    files = files[source.skip :][: source.max_samples]

    def build(number: int) -> Row:
        name = files[number].relative_to(root).as_posix()
        try:
            found = content(files[number], name)
        except OSError as error:
            found = f"{name} ({error.strerror})"
        return evaluation_row(
            name,
            [found],
            question + source.prompt_suffix,
            [TO_COME],
            benchmark=root.name or "pictures",
            split=source.split,
            source=root.name or "pictures",
        )

    rows = Items(len(files), build)
    return Questions(
        RowKind.EVALUATION,
        lambda: (partial(read_placed, partial(rows.build, at)) for at in range(len(rows))),
        lambda: len(rows),
        False,
        {"kind": "pictures", "question": question, "suffix": source.prompt_suffix},
    )
