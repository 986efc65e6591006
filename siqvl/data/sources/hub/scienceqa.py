"""ScienceQA (Lu et al. 2022, arXiv:2209.09513): school questions, half of them with a picture.

`path` is the hub id (derek-thomas/ScienceQA) or its parquet files. Columns, from its card: `image`
(may be null), `question`, `choices`, `answer` (index), `hint`, `lecture`, `solution`, `task`,
`grade`, `subject`, `topic`, `category`, `skill`. Or it is the official download (github.com/
lupantech/ScienceQA), a folder with `problems.json`, one object keyed by id whose rows say their
`split`, and the pictures `<split>/<id>/image.png`. The hint is put before the question. The
rationale is the solution; a tenth of the rows has none. The lecture, general and long, stays in
`meta`.
"""

from __future__ import annotations

from functools import partial
from typing import Any

from siqvl.data.schema import Row, RowKind
from siqvl.data.sources.base import require_split
from siqvl.data.sources.formats.table_file import Record
from siqvl.data.sources.reading.published import Download, Published
from siqvl.data.sources.reading.question_rows import (
    ReasoningAdapter,
    choices_of,
    chosen,
    question_row,
)
from siqvl.data.sources.reading.splits import split_named
from siqvl.data.sources.reading.tree import Tree
from siqvl.errors import UserError
from siqvl.recipe import Source


class ScienceQA(ReasoningAdapter):
    """Adapter `scienceqa`."""

    name = "scienceqa"
    kinds = frozenset({RowKind.SFT, RowKind.EVALUATION})
    needs = ("image", "question", "choices", "answer", "hint", "solution")
    official = "problems.json"

    def has_steps(self, one: Published) -> bool:
        return bool(one.text("solution"))

    def asked(self, kind: RowKind, one: Published, reasoned: bool) -> Row:
        hint, question = one.text("hint"), one.text("question")
        choices = choices_of(one)
        return question_row(
            kind,
            one,
            id=one.id(),
            images=one.pictures(),
            question=f"{hint}\n{question}" if hint and question else question,
            answers=chosen(choices, one["answer"]),
            choices=choices,
            steps=one.text("solution") if reasoned else "",
            lecture=one["lecture"],
            type=one["subject"],  # by which its tables are split
            subject=one["subject"],
            topic=one["topic"],
            grade=one["grade"],
        )

    def download(self, source: Source, tree: Tree) -> Download | None:
        name = tree.find("problems.json")
        return Download(partial(_problems, tree, name, source), tree, _photo) if name else None


def _problems(tree: Tree, name: str, source: Source) -> list[Any]:
    """The rows of a split, each with its key as `id`.

    Raises:
        UserError: the file is no object of objects, or has no such split.
    """
    found = tree.json(name)
    if not isinstance(found, dict):
        raise UserError(f"{tree.path}: {name} is no object keyed by id; is it ScienceQA's?")
    rows = [{**row, "id": key} if isinstance(row, dict) else row for key, row in found.items()]
    known = sorted({str(row.get("split")) for row in rows if isinstance(row, dict)})
    meant = split_named(source.split, known)
    if meant == "validation" and meant not in known:
        meant = "val"  # as the file calls it
    require_split(source.model_copy(update={"split": meant}), known)
    return [row for row in rows if not isinstance(row, dict) or row.get("split") == meant]


def _photo(record: Record) -> str | None:
    """Where the picture of a row lies; None for a row without."""
    if not record.get("image"):
        return None
    return f"{record.get('split')}/{record.get('id')}/{record['image']}"
