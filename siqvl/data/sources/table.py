"""Any published table, by naming its columns: one row a question, a conversation or a pair.

`columns` maps canonical fields to published columns; a field whose column has the same name need
not be mapped. A dot reaches into a column that holds an object or its JSON, as in
`question: text.question`. Pictures are bytes, objects of bytes and path, or paths: relative to the
table, to the data set's folder, or to a folder in these.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

from siqvl.data.schema import Row, RowKind, message, preference_row, sft_row, with_options
from siqvl.data.sources.base import Items, Stream, label
from siqvl.data.sources.reading.conversations import clean, split_turns, untagged
from siqvl.data.sources.reading.published import Published, TableAdapter
from siqvl.data.sources.reading.question_rows import question_row
from siqvl.data.sources.reading.table_file import Record, has_ending, parsed
from siqvl.data.sources.reading.tabular import columns, is_local
from siqvl.errors import UserError
from siqvl.recipe import Source

FIELDS = (
    *("id", "image", "images", "question", "answer", "answers", "choices"),
    *("reasoning", "conversations", "chosen", "rejected"),
)
#: What a kind of row cannot do without: one of each group.
NEEDED = {
    RowKind.SFT: (("question", "conversations"), ("answer", "answers", "conversations")),
    RowKind.PREFERENCE: (("question", "conversations"), ("chosen",), ("rejected",)),
    RowKind.EVALUATION: (("question",), ("answer", "answers")),
}


class Table(TableAdapter):
    """Adapter `table`."""

    name = "table"
    kinds = frozenset(RowKind)
    needs = ()

    def check(self, source: Source, kind: RowKind) -> None:
        for field in source.columns:
            if field not in FIELDS:
                raise UserError(
                    f"{label(source)}: unknown field `{field}` in `columns`; "
                    f"known are {', '.join(FIELDS)}"
                )
        super().check(source, kind)
        if is_local(source):
            require_fields(source, kind)

    def read(self, source: Source, kind: RowKind, *, pictured: bool) -> Items | Stream:
        if not is_local(source):  # local columns are known before work starts
            require_fields(source, kind)
        return super().read(source, kind, pictured=pictured)

    def row(self, kind: RowKind, one: Published) -> Row:
        """What is missing or of a wrong type becomes empty; preparation quarantines it."""
        return fields_row(kind, replace(one, record=_fields(one.record, one.origin.columns)))

    def title(self, source: Source) -> str:
        name = Path(str(source.path)).name or Path.cwd().name
        return name.removesuffix(".gz").rpartition(".")[0] if has_ending(name) else name


def require_fields(source: Source, kind: RowKind) -> None:
    """Raise UserError for a mapped column that is missing, or a needed field without a column."""
    found = columns(source)
    has = f"{source.path} has {', '.join(found) or 'no rows'}"
    for field, column in source.columns.items():
        if column.split(".")[0] not in found:
            raise UserError(f"{label(source)}: no column `{column}` for `{field}`; {has}")
    for group in NEEDED[kind]:
        if not any(field in found or field in source.columns for field in group):
            names = " or ".join(f"`{field}`" for field in group)
            raise UserError(
                f"{label(source)}: {kind} rows need {names}: map it in `columns`; {has}"
            )


def fields_row(kind: RowKind, one: Published) -> Row:
    """Canonical fields of a published row -> a canonical row."""
    images = one.pictures("images") if "images" in one.record else one.pictures()
    choices = [_text(choice) for choice in _as_list(one["choices"])]
    question = one.text("question")
    answers = _answers(one, choices) if all(choices) else []  # an index would mislead
    if kind is RowKind.EVALUATION or (kind is RowKind.SFT and question and answers):
        return question_row(
            kind,
            one,
            id=one.id("id"),
            images=images,
            question=question,
            answers=answers,
            choices=choices,
            steps=_steps(one["reasoning"]),
        )
    prompt, completion = split_turns(parsed(one["conversations"]))
    if question:
        prompt = [message("user", with_options(question, choices))]
    about: dict[str, Any] = {"source": one.source, "choices": choices}
    if kind is RowKind.PREFERENCE:
        sides = (_last_answer(one["chosen"]), _last_answer(one["rejected"]))
        return preference_row(one.id("id"), images, prompt, *sides, **about)
    turns = untagged(prompt + completion)
    return sft_row(one.id("id"), images, turns[: len(prompt)], turns[len(prompt) :], **about)


def _fields(record: Record, mapping: dict[str, str]) -> Record:
    """Canonical field -> value, of every field that this row has."""
    fields = {field: record[field] for field in FIELDS if field in record}
    return fields | {field: _value(record, column) for field, column in mapping.items()}


def _value(record: Record, column: str) -> Any:
    """The value of a column, following dots into objects; None when it is not there."""
    first, *rest = column.split(".")
    value = record.get(first)
    for key in rest:
        value = parsed(value)
        value = value.get(key) if isinstance(value, dict) else None
    return value


def _steps(value: Any) -> str:
    """The written steps; the first of several; empty where there are none: a direct answer."""
    return next((steps for one in _as_list(value) if (steps := clean(one))), "")


def _answers(one: Published, choices: list[str]) -> list[str]:
    """All published answers, most of them texts; VQAv2 wraps each of its ten in an object."""
    values = _as_list(one["answers"]) or _as_list(one["answer"])
    values = [value.get("answer") if isinstance(value, dict) else value for value in values]
    texts = (_answer(_text(value), choices) for value in values)
    return [text for text in texts if text]


def _answer(text: str, choices: list[str]) -> str:
    """A number that is no choice itself is the index of one, from 0 (ScienceQA)."""
    if text not in choices and text.isdecimal() and len(text) < 4 and int(text) < len(choices):
        return choices[int(text)]
    return text


def _text(value: Any) -> str:
    """Text or a number as text; empty for anything else, NaN too: pandas' missing value.

    A whole number may be published as a float: where one is missing, pandas makes them all floats.
    """
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    if isinstance(value, bool | int | str) or (isinstance(value, float) and value == value):
        return clean(str(value))
    return ""


def _last_answer(value: Any) -> str:
    """A completion that is text, or the last answer of a conversation."""
    value = parsed(value)
    if isinstance(value, list):
        completion = split_turns(value)[1]
        return completion[0]["content"] if completion else ""
    return clean(value)


def _as_list(value: Any) -> list[Any]:
    value = parsed(value)
    if value is None or value == "":
        return []
    return list(value) if isinstance(value, list | tuple) else [value]
