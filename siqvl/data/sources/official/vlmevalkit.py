"""VLMEvalKit's benchmarks (github.com/open-compass/VLMEvalKit): one `.tsv`, pictures and all.

Columns, from its docs/en/Development.md: `index`, `question`, `answer`, the options `A`, `B`, …
where there are any (the answer is a letter then), `hint`, `category`, and either `image`, the
picture as base64, or `image_path`, its file. A list of pictures is the text of one. An `image` of
at most 64 characters is no picture but the `index` of the row that holds it.
"""

from __future__ import annotations

import base64
import binascii
from functools import cached_property, partial
from string import ascii_uppercase
from typing import Any

from siqvl.data.schema import Row, RowKind
from siqvl.data.sources.formats.table_file import DamagedRecord
from siqvl.data.sources.reading.published import Published, TableAdapter, Way
from siqvl.data.sources.reading.question_rows import question_row
from siqvl.data.sources.reading.tabular import records
from siqvl.data.sources.tables.choices import chosen_texts
from siqvl.data.sources.values.cells import Misread, is_missing, list_of, text_of
from siqvl.recipe import Source

REFERENCE = 64  # characters of an `image` that is the index of another row, at most


class VLMEvalKit(TableAdapter):
    """Adapter `vlmevalkit`."""

    name = "vlmevalkit"
    kinds = frozenset({RowKind.SFT, RowKind.EVALUATION})
    needs = ("index", "question", "answer")

    def ways(self, source: Source, kind: RowKind) -> list[Way]:
        return [partial(_row, kind, SharedPictures(source))]


class SharedPictures:
    """The pictures of rows that others refer to, read when the first of these is met."""

    def __init__(self, source: Source) -> None:
        self._source = source

    def __getitem__(self, index: str) -> str:
        """The base64 of the row with that index; a text that says why there is none."""
        return self._found.get(index, f"{index} (no row of this index holds a picture)")

    @cached_property
    def _found(self) -> dict[str, str]:
        wanted = {
            value
            for _, image in self._rows()
            for value in _several(image)
            if len(value) <= REFERENCE
        }
        return {index: image for index, image in self._rows() if index in wanted and image}

    def _rows(self) -> Any:
        """Index and `image` of every row whose `image` is a text."""
        for read, _ in records(self._source, None, ["index", "image"]):
            try:
                record = read()
                index, image = text_of(record.get("index"), "index"), record.get("image")
            except (DamagedRecord, Misread):
                continue
            if isinstance(image, str):
                yield index, image


def _row(kind: RowKind, shared: SharedPictures, one: Published) -> Row:
    options = {letter: one[letter] for letter in ascii_uppercase if not is_missing(one[letter])}
    if options.keys() != set(ascii_uppercase[: len(options)]):
        raise Misread(f"options {', '.join(options)} are not the first letters of the alphabet")
    choices = [text_of(option, f"option {letter}") for letter, option in options.items()]
    answers = [text_of(answer, "answer") for answer in _answers(one["answer"], choices)]
    if choices:
        answers = chosen_texts(answers, choices, "letter")
    hint, question = text_of(one["hint"], "hint"), text_of(one["question"], "question")
    return question_row(
        kind,
        one,
        id=one.id("index"),
        images=_images(one, shared),
        question=f"{hint}\n{question}" if hint and question else question,
        answers=answers,
        choices=choices,
        by_letter=True,
        type=one["category"],
        category=one["category"],
        l2_category=one["l2-category"],
    )


def _answers(value: Any, choices: list[str]) -> list[Any]:
    """The answers: of a multiple choice one letter, else one text or the text of a list."""
    found = [value] if choices else list_of(value, "answers")
    return [one for one in found if not is_missing(one)]


def _images(one: Published, shared: SharedPictures) -> list[Any]:
    if is_missing(one["image"]):
        return one.found(list_of(one["image_path"], "images"))
    found = _several(one["image"])
    if not found:
        return one.found([one["image"]])  # no text: preparation says what it is
    whole = (shared[value] if len(value) <= REFERENCE else value for value in found)
    return [_decoded(value) for value in whole]


def _several(image: Any) -> list[str]:
    """The texts of a cell of pictures; empty when it holds none."""
    try:
        return [one for one in list_of(image, "images") if isinstance(one, str)]
    except Misread:
        return []


def _decoded(value: str) -> bytes | str:
    try:
        return base64.b64decode(value, validate=True)
    except (binascii.Error, ValueError):
        return value if len(value) <= 2 * REFERENCE else f"{value[:REFERENCE]}… (no base64)"
