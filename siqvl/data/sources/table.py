"""Any published table, by naming its columns: VQAv2, TextVQA, GQA, LLaVA-CoT, RLHF-V, RLAIF-V …

`columns` maps canonical fields to published columns; a field whose column has the same name need
not be mapped. A dot reaches into a column that holds an object or its JSON, as in RLHF-V's
`question: text.question`.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from siqvl.data.schema import (
    ANSWER_MARKER,
    REASONING_PROMPT,
    Row,
    RowKind,
    evaluation_row,
    message,
    preference_row,
    reasoned_answer,
    sft_row,
    with_options,
)
from siqvl.data.sources.base import label
from siqvl.data.sources.conversations import clean, reasoned, split_turns
from siqvl.data.sources.tabular import (
    Record,
    check_table,
    columns,
    image_value,
    interleaved,
    is_local,
    records,
    subsets_of,
)
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


class Table:
    """Adapter `table`."""

    kinds = frozenset(RowKind)

    def check(self, source: Source, kind: RowKind) -> None:
        for field in source.columns:
            if field not in FIELDS:
                raise UserError(
                    f"{label(source)}: unknown field `{field}` in `columns`; "
                    f"known are {', '.join(FIELDS)}"
                )
        check_table(source)
        if is_local(source):
            field_columns(source, kind, columns(source))

    def rows(self, source: Source, kind: RowKind, seed: int) -> Iterator[Row]:
        """Subsets take turns, so that the first rows are of all of them."""
        mapping = field_columns(source, kind, columns(source))
        streams = [_subset(source, subset, kind, mapping) for subset in subsets_of(source)]
        return interleaved(streams)


def field_columns(source: Source, kind: RowKind, found: list[str]) -> dict[str, str]:
    """Canonical field -> published column, for the fields that this table has.

    Raises:
        UserError: a mapped column is missing, or a field that the kind needs has no column.
    """
    has = f"{source.path} has {', '.join(found) or 'no rows'}"
    for field, column in source.columns.items():
        if column.split(".")[0] not in found:
            raise UserError(f"{label(source)}: no column `{column}` for `{field}`; {has}")
    mapping = {field: field for field in FIELDS if field in found} | source.columns
    for group in NEEDED[kind]:
        if not any(field in mapping for field in group):
            names = " or ".join(f"`{field}`" for field in group)
            raise UserError(
                f"{label(source)}: {kind} rows need {names}: map it in `columns`; {has}"
            )
    return mapping


def _subset(
    source: Source, subset: str | None, kind: RowKind, mapping: dict[str, str]
) -> Iterator[Row]:
    name = "/".join(part for part in (Path(str(source.path)).stem, subset) if part)
    for index, (record, folder) in enumerate(records(source, subset)):
        fields = {field: _value(record, column) for field, column in mapping.items()}
        number = f"{index:07d}" if fields.get("id") is None else fields["id"]
        row_id = f"{name}/{source.split}/{number}"
        yield table_row(kind, row_id, name, source.split, fields, folder)


def _value(record: Record, column: str) -> Any:
    """The value of a column, following dots into objects; None when it is not there."""
    first, *rest = column.split(".")
    value = record.get(first)
    for key in rest:
        if isinstance(value, str):
            try:
                value = json.loads(value)
            except ValueError:
                return None
        value = value.get(key) if isinstance(value, dict) else None
    return value


def table_row(
    kind: RowKind,
    row_id: str,
    name: str,
    split: str,
    fields: dict[str, Any],
    folder: Path | None,
) -> Row:
    """Canonical fields of a published row -> a canonical row.

    What is missing or of a wrong type becomes empty; preparation quarantines the row for it.
    """
    found = fields.get("images") if "images" in fields else [fields.get("image")]
    images = [image_value(image, folder) for image in _as_list(found) if image is not None]
    choices = [str(choice) for choice in _as_list(fields.get("choices"))]
    answers = _answers(fields, choices)
    about: dict[str, Any] = {"source": name, "choices": choices}
    if kind is RowKind.EVALUATION:
        question = with_options(clean(fields.get("question")), choices)
        about |= {"benchmark": name, "split": split}
        return evaluation_row(row_id, images, question, answers, **about)
    prompt, completion = split_turns(_parsed(fields.get("conversations")))
    question = clean(fields.get("question"))
    prompt = [message("user", with_options(question, choices))] if question else prompt
    if kind is RowKind.PREFERENCE:
        sides = (_text(fields.get("chosen")), _text(fields.get("rejected")))
        return preference_row(row_id, images, prompt, *sides, **about)
    target = Counter(answers).most_common(1)[0][0] if answers else ""
    about["answers"] = answers
    if steps := _reasoning(fields.get("reasoning")):
        target = reasoned_answer(steps, target) if target else ""
    elif not target and completion:
        target = reasoned(completion[0]["content"])
    if ANSWER_MARKER in target and prompt:
        prompt[-1] = message("user", prompt[-1]["content"] + REASONING_PROMPT)
    return sft_row(row_id, images, prompt, target, **about)


def _reasoning(value: Any) -> str:
    """The written steps; the first of several (A-OKVQA has three); empty where there are none.

    A row without steps is trained on as a direct answer (a tenth of ScienceQA has no solution).
    """
    return next((steps for one in _as_list(value) if (steps := clean(one))), "")


def _answers(fields: dict[str, Any], choices: list[str]) -> list[str]:
    """All published answers, most of them strings; VQAv2 wraps each of its ten in an object."""
    values = _as_list(fields["answers"] if "answers" in fields else fields.get("answer"))
    values = [value.get("answer") if isinstance(value, dict) else value for value in values]
    if "answers" in fields and not values:
        values = _as_list(fields.get("answer"))
    return [_answer(value, choices) for value in values if value is not None]


def _answer(value: Any, choices: list[str]) -> str:
    """An int that is no choice itself is the index of one (ScienceQA)."""
    if isinstance(value, int) and str(value) not in choices and value in range(len(choices)):
        return choices[value]
    return str(value).strip()


def _text(value: Any) -> str:
    """A completion that is text, or the last answer of a conversation."""
    value = _parsed(value)
    if isinstance(value, list):
        completion = split_turns(value)[1]
        return completion[0]["content"] if completion else ""
    return clean(value)


def _parsed(value: Any) -> Any:
    """Lists are sometimes published as their JSON."""
    if isinstance(value, str) and value.lstrip().startswith("["):
        try:
            return json.loads(value)
        except ValueError:
            return value
    return value


def _as_list(value: Any) -> list[Any]:
    value = _parsed(value)
    if value is None or value == "":
        return []
    return list(value) if isinstance(value, list | tuple) else [value]
