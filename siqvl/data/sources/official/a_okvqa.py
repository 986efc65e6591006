"""A-OKVQA (Schwenk et al. 2022, arXiv:2206.01718): photos and world knowledge, with rationales.

`path` is the hub id (HuggingFaceM4/A-OKVQA: `image`, `question_id`, `question`, four `choices`,
`correct_choice_idx`, `direct_answers` as the text of a Python list, three `rationales`), or the
official download below one folder: `aokvqa_v1p0_train.json` (a list) and the photos of COCO 2017,
`<image_id in 12 digits>.jpg`. Asked is the multiple-choice question; the first rationale is learnt.
"""

from __future__ import annotations

import ast
from functools import partial
from typing import Any

from siqvl.data.schema import Row, RowKind
from siqvl.data.sources.reading.picture_fields import coco_file_name
from siqvl.data.sources.reading.published import Download, Published
from siqvl.data.sources.reading.question_rows import (
    ReasoningAdapter,
    choices_of,
    chosen,
    question_row,
)
from siqvl.data.sources.reading.tree import Tree
from siqvl.recipe import Source

PARTS = {"train": "train", "validation": "val", "val": "val"}


class AOKVQA(ReasoningAdapter):
    """Adapter `a_okvqa`."""

    name = "a_okvqa"
    kinds = frozenset({RowKind.SFT, RowKind.EVALUATION})
    needs = ("image", "question_id", "question", "choices", "correct_choice_idx", "rationales")
    unanswered = ("test",)
    official = "aokvqa_v1p0_*.json of the split"

    def has_steps(self, one: Published) -> bool:
        return bool(one.texts("rationales"))

    def asked(self, kind: RowKind, one: Published, reasoned: bool) -> Row:
        choices = choices_of(one)
        return question_row(
            kind,
            one,
            id=one.id("question_id"),
            images=[one.picture()],
            question=one.text("question"),
            answers=chosen(choices, one["correct_choice_idx"]),
            choices=choices,
            steps=one.texts("rationales")[0] if reasoned else "",
            direct_answers=direct_answers(one["direct_answers"]),
        )

    def download(self, source: Source, tree: Tree) -> Download | None:
        name = tree.find(f"aokvqa_v1p0_{PARTS.get(source.split)}.json")
        if name is None:
            return None
        load = partial(tree.json_list, name, of="A-OKVQA")
        return Download(load, tree, lambda record: coco_file_name(record.get("image_id")))


def direct_answers(published: Any) -> Any:
    """The ten free answers as a list: on the hub they are its text."""
    try:
        return ast.literal_eval(published) if isinstance(published, str) else published
    except (ValueError, SyntaxError, MemoryError, RecursionError):
        return published
