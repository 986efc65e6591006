"""Any published table, by naming its columns: one row a question, a conversation or a pair.

`columns` maps canonical fields to published columns; a field whose column has the same name need
not be mapped. Beside one column it takes patterns, lists of columns, and null for a column that is
not wanted (`fields`, `patterns`). Pictures are bytes, objects of bytes and path, or paths: relative
to the table, to the data set's folder, to a folder in these, or to the source's `pictures`.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from siqvl.composed_text import alike
from siqvl.data.schema import Row, RowKind, left_out_row, message, with_options
from siqvl.data.sources.base import Items, Stream, damaged_row, label
from siqvl.data.sources.formats.table_file import DamagedRecord, has_ending
from siqvl.data.sources.formats.text_file import without_ending
from siqvl.data.sources.reading.message_fields import (
    ANSWERING,
    ASKING,
    REJECTED,
    message_row,
    require_agreement,
)
from siqvl.data.sources.reading.picture_fields import ENDINGS
from siqvl.data.sources.reading.published import Published, TableAdapter, Way
from siqvl.data.sources.reading.question_rows import commonest, question_row
from siqvl.data.sources.reading.tabular import (
    columns,
    headers,
    is_local,
    no_rows,
    records,
    refuse_mixed_splits,
    subsets_of,
)
from siqvl.data.sources.tables.choices import SHOWN, chosen_texts, listed, reading_of
from siqvl.data.sources.tables.fields import ABOUT, Fields
from siqvl.data.sources.values.cells import Misread, is_missing, list_of, text_of
from siqvl.data.sources.values.nested import value_at
from siqvl.errors import UserError
from siqvl.recipe import ChoicesAre, Source

#: What a kind of row cannot do without: one of each group.
NEEDED = {
    RowKind.SFT: (("question", *ASKING), ("answer", "answers", *ANSWERING)),
    RowKind.PREFERENCE: (
        ("question", "chosen", *ASKING),  # both sides may hold what is asked
        ("chosen", *ANSWERING),
        REJECTED,
    ),
    RowKind.EVALUATION: (("question",), ("answer", "answers")),
}
KEY = "__key__"  # a column that rows of WebDataset shards have, and others do not
READ = ("choices", "answers", "answer")  # fields that tell how choices are read


class Table(TableAdapter):
    """Adapter `table`."""

    name = "table"
    kinds = frozenset(RowKind)
    needs = ()

    def check(self, source: Source, kind: RowKind) -> None:
        Fields(source)
        super().check(source, kind)
        if is_local(source):
            require_fields(source, kind)
            refuse_mixed_splits(source)

    def read(
        self, source: Source, kind: RowKind, *, pictured: bool, through: int | None = None
    ) -> Items | Stream:
        if not is_local(source):  # local columns are known before work starts
            require_fields(source, kind)
        if source.choices_are is None:
            found = self.choices_are(source, through) or "text"
            source = source.model_copy(update={"choices_are": found})
        return super().read(source, kind, pictured=pictured, through=through)

    def choices_are(self, source: Source, through: int | None = None) -> ChoicesAre | None:
        """How the answers of rows with choices are read; None where there are none.

        Args:
            through: rows of a subset that are looked at, at most; None for all.

        Raises:
            UserError: the source does not say it, and its rows can be read in two ways.
        """
        fields = Fields(source)
        if not fields.has("choices", columns(source)):
            return None
        try:
            return source.choices_are or reading_of(_answering(source, fields, through))
        except Misread as error:
            raise UserError(f"{label(source)}: {source.path}: {error}") from None

    def ways(self, source: Source, kind: RowKind) -> list[Way]:
        fields = Fields(source)
        return [
            partial(_way, fields, kind, asked, number)
            for asked in (source.ask or {"": ""})
            for number in (fields.numbers or [None])
        ]

    def title(self, source: Source) -> str:
        name = Path(str(source.path)).name or Path.cwd().name
        return without_ending(name) if has_ending(name) else name


def require_fields(source: Source, kind: RowKind) -> None:
    """Raise UserError for a named column that is missing, or a needed field without a column."""
    found, fields = columns(source), Fields(source)
    has = f"{source.path} has {', '.join(found) or no_rows(source)}"
    named = {
        **{column: f"`{field}`" for column, field in fields.columns_of().items()},
        **dict.fromkeys(source.where, "`where`"),
        **dict.fromkeys(source.ask, "`ask`"),
    }
    for column, use in named.items():
        names = _called(column, found)
        if not names:
            raise UserError(f"{label(source)}: no column `{column}` for {use}; {has}")
        if len(names) > 1:
            raise UserError(
                f"{label(source)}: {source.path} has {len(names)} columns that look like "
                f"`{column}`, an accented letter being one character in one of them and two in the "
                "other; rename one"
            )
    _require_in_each(source, named)
    for group in NEEDED[kind]:
        if not any(fields.has(field, found) for field in group):
            needed = " or ".join(f"`{field}`" for field in group)
            raise UserError(
                f"{label(source)}: {kind} rows need {needed}: map it in `columns`; {has}"
            )


def _called(column: str, published: Sequence[str]) -> list[str]:
    """The published columns that are meant by a name, with dots into them."""
    return alike(column, published) or alike(column.split(".")[0], published)


def _require_in_each(source: Source, named: dict[str, str]) -> None:
    """Raise UserError where one of several tables lacks a column that the recipe names.

    Its rows would come without a picture, or not at all. Only files that name their columns tell:
    JSON leaves out what is empty.
    """
    if not is_local(source):
        return
    for file, found in headers(source):
        for column, use in named.items():
            if not _called(column, found):
                raise UserError(
                    f"{label(source)}: {file} has no column `{column}` for {use}, as other tables "
                    f"of {source.path} have: it has {', '.join(found)}; read it as a source of its "
                    "own"
                )


def _way(fields: Fields, kind: RowKind, asked: str, number: int | None, one: Published) -> Row:
    """The row of one asked column and one number of a range; a reason where there is none."""
    parts = [asked] * bool(asked) + ([] if number is None else [str(number)])
    try:
        _require_pictures_of_shard(fields, one)
        record = fields.of(one.record, number)
        if asked:
            answer = value_at(one.record, asked)
            record |= {"question": one.origin.ask[asked], "answer": answer}
        one = one.holding(record)
        row_id = "/".join([one.id("id"), *parts])
        if asked and is_missing(record["answer"]):
            return left_out_row(row_id, f"nothing in column `{asked}`", source=one.source)
        return fields_row(kind, one, row_id)
    except Misread as error:
        return damaged_row("/".join([one.id(), *parts]), str(error), source=one.source)


def _require_pictures_of_shard(fields: Fields, one: Published) -> None:
    """Raise Misread where a row of a WebDataset shard has a picture, but not where one is mapped.

    Shards mix endings: what is `jpg` in one row is `png` in the next.
    """
    named = [name.split(".")[0] for name in fields.columns_of("image", "images")]
    if KEY not in one.record or not named or any(name in one.record for name in named):
        return
    for column, value in one.record.items():
        if isinstance(value, bytes) and column.rpartition(".")[2].lower() in ENDINGS:
            raise Misread(
                f"it has no picture in `{named[0]}`, but a member `{column}` that no field is "
                f"mapped to: map both, as in `images: [{named[0]}, {column}]`"
            )


def fields_row(kind: RowKind, one: Published, row_id: str) -> Row:
    """Canonical fields of a published row -> a canonical row.

    What is missing becomes empty; preparation quarantines it.

    Raises:
        Misread: a field holds what has no right reading.
    """
    images = _pictures(one)
    choices = _choices(one.record)
    question = text_of(one["question"], "question")
    several = _several(one.record)
    written, target = _answers(one.record, several), _answer_beside(one.record, several)
    answers, reading = written, one.origin.choices_are or "text"
    if choices:
        answers = chosen_texts(written, choices, reading, other_words=bool(several))
        target = "".join(chosen_texts([target] * bool(target), choices, reading))
        target = target or commonest([answer for answer in answers if answer in choices])
        _require_one_choice(one.record, answers)
    if kind is RowKind.SFT and question and answers:
        require_agreement(one, {*written, *answers})
    if kind is RowKind.EVALUATION or (kind is RowKind.SFT and question and answers):
        row = question_row(
            kind,
            one,
            id=row_id,
            images=images,
            question=question,
            answers=answers,
            choices=choices,
            by_letter=reading == "letter",
            target=target,
            steps=_steps(one["reasoning"]),
            **{name: text for name in ABOUT if (text := text_of(one[name], name))},
        )
        return row if kind is RowKind.EVALUATION else _with_system(one, row)
    if question:
        question = with_options(question, choices, by_letter=reading == "letter")
    return message_row(kind, one, id=row_id, images=images, question=question, choices=choices)


def _with_system(one: Published, row: Row) -> Row:
    """A question's row below the system message of a column that is mapped to be one."""
    text = text_of(one["system"], "system") if one.origin.columns.get("system") else ""
    return row | {"prompt": [message("system", text), *row["prompt"]]} if text else row


def _answering(
    source: Source, fields: Fields, through: int | None
) -> Iterator[tuple[list[str], list[str]]]:
    """Answers and choices of every row; what is damaged says nothing."""
    needed = [*fields.columns_of(*READ)]
    for subset in subsets_of(source):
        for read, _ in records(source, subset, needed, through=through):
            try:
                found = fields.of(read())
                yield _answers(found, _several(found)), _choices(found)
            except (DamagedRecord, Misread):
                continue


def _pictures(one: Published) -> list[Any]:
    """The pictures of `image` or `images`, whichever is filled.

    Raises:
        Misread: both are, and differ.
    """
    single, several = one["image"], list_of(one["images"], "images")
    single = [] if is_missing(single) else single
    single = list(single) if isinstance(single, list | tuple) else [single]
    if single and several and single != several:
        raise Misread(
            f"`image` holds {len(single)} and `images` {len(several)} pictures that differ; map "
            "the right one in `columns`, or the other one to null"
        )
    return one.found(several or single)


def _choices(record: dict[str, Any]) -> list[str]:
    """All choices in their order.

    Raises:
        Misread: one is empty, as an index would then mislead.
    """
    found = list_of(record.get("choices"), "choices")
    texts = [text_of(choice, f"choice {place}") for place, choice in enumerate(found, 1)]
    if "" in texts:
        raise Misread(f"choice {texts.index('') + 1} of {len(texts)} is empty")
    return texts


def _answers(record: dict[str, Any], several: list[str]) -> list[str]:
    """All published answers.

    Args:
        several: of the field that holds several.

    Raises:
        Misread: there is an answer beside them that is none of them.
    """
    if several:
        if (text := _answer_beside(record, several)) and text not in several:
            raise Misread(
                f"`answer` is {text[:SHOWN]!r}, which is none of its `answers`, {listed(several)}: "
                "map the one that is meant in `columns`, and options to `choices`"
            )
        return several
    value = record.get("answer")
    values = value if isinstance(value, list | tuple) else [value]
    return [text for value in values if (text := text_of(value, "answer"))]


def _several(record: dict[str, Any]) -> list[str]:
    """The texts of the field that holds several answers; VQAv2 wraps each in an object."""
    values = [
        value.get("answer") if isinstance(value, dict) else value
        for value in list_of(record.get("answers"), "answers")
    ]
    return [text for value in values if (text := text_of(value, "answer"))]


def _answer_beside(record: dict[str, Any], several: list[str]) -> str:
    """The one answer that a row gives beside several; empty where it does not."""
    if record.get("answer") in (None, []) or not several:
        return ""
    return text_of(record["answer"], "answer")


def _require_one_choice(record: dict[str, Any], chosen: Sequence[str]) -> None:
    """Raise Misread where a list of choices is one answer."""
    several = dict.fromkeys(chosen)
    if isinstance(record.get("answer"), list | tuple) and len(several) > 1:
        raise Misread(
            f"`answer` holds {len(several)} choices, {', '.join(several)[:SHOWN]}: questions with "
            "several right choices at once are not read; where each of them is right by itself, "
            "map it to `answers`"
        )


def _steps(value: Any) -> str:
    """The written steps; the first of several; empty where there are none: a direct answer."""
    several = value if isinstance(value, list | tuple) else [value]
    return next((steps for one in several if (steps := text_of(one, "reasoning"))), "")
