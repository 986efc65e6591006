"""TextVQA (Singh et al. 2019, arXiv:1904.08920): questions that need the text in a photo read.

`path` is the hub id (lmms-lab/textvqa: `image`, `question_id`, `question`, ten `answers`), or the
official download (textvqa.org/dataset), unpacked below one folder: `TextVQA_0.5.1_train.json` (an
object whose `data` lists the questions) and the photos `<image_id>.jpg`.
"""

from __future__ import annotations

from functools import partial

from siqvl.data.schema import Row, RowKind
from siqvl.data.sources.reading.published import Download, Published, TableAdapter
from siqvl.data.sources.reading.question_rows import question_row
from siqvl.data.sources.reading.tree import Tree
from siqvl.recipe import Source

PARTS = {"train": "train", "validation": "val", "val": "val"}


class TextVQA(TableAdapter):
    """Adapter `textvqa`."""

    name = "textvqa"
    kinds = frozenset({RowKind.SFT, RowKind.EVALUATION})
    needs = ("question_id", "image", "question", "answers")
    unanswered = ("test",)
    official = "TextVQA_0.5.1_*.json of the split"

    def row(self, kind: RowKind, one: Published) -> Row:
        return question_row(
            kind,
            one,
            id=one.id("question_id"),
            images=[one.picture()],
            question=one.text("question"),
            answers=one.texts("answers"),
            image_id=one["image_id"],
            image_classes=one["image_classes"],
        )

    def download(self, source: Source, tree: Tree) -> Download | None:
        name = tree.find(f"TextVQA_0.5.1_{PARTS.get(source.split)}.json")
        if name is None:
            return None
        load = partial(tree.json_list, name, "data", of="TextVQA")
        return Download(load, tree, lambda record: f"{record.get('image_id')}.jpg")
