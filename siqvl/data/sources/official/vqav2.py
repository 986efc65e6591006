"""VQAv2 (Goyal et al. 2017, arXiv:1612.00837): questions about COCO photos, ten answers each.

`path` is one of
- the official download (visualqa.org/download.html), unpacked below one folder:
  `v2_OpenEnded_mscoco_train2014_questions.json`, `v2_mscoco_train2014_annotations.json` and the
  photos `COCO_train2014_<12 digits>.jpg`; splits `train` and `validation` (or `val`);
- a hub id with `question_id`, `image`, `question` and `answers`, as lmms-lab/VQAv2, whose only
  split with answers is `validation`. HuggingFaceM4/VQAv2 has the same columns and `train`, but is a
  script, which `datasets` no longer runs.
Trained on is `multiple_choice_answer`, which is the most frequent of the ten.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from functools import partial
from typing import Any

from siqvl.data.schema import Row, RowKind
from siqvl.data.sources.base import label
from siqvl.data.sources.formats.record import Record
from siqvl.data.sources.reading.conversations import clean
from siqvl.data.sources.reading.picture_fields import coco_file_name
from siqvl.data.sources.reading.published import Download, Published, TableAdapter
from siqvl.data.sources.reading.question_rows import question_row
from siqvl.data.sources.reading.tree import Tree
from siqvl.errors import UserError
from siqvl.recipe import Source

PARTS = {"train": "train2014", "validation": "val2014", "val": "val2014"}


class VQAv2(TableAdapter):
    """Adapter `vqav2`."""

    name = "vqav2"
    kinds = frozenset({RowKind.SFT, RowKind.EVALUATION})
    needs = ("question_id", "image", "question", "answers")
    unanswered = ("test", "testdev")
    official = "v2_OpenEnded_mscoco_*2014_questions.json of the split"

    def row(self, kind: RowKind, one: Published) -> Row:
        return question_row(
            kind,
            one,
            id=one.id("question_id"),
            images=[one.picture()],
            question=one.text("question"),
            answers=answers(one["answers"]),
            target=one.text("multiple_choice_answer"),
            type=one["answer_type"],  # by which VQA's tables are split: yes/no, number, other
            question_type=one["question_type"],
            answer_type=one["answer_type"],
            image_id=one["image_id"],
        )

    def download(self, source: Source, tree: Tree) -> Download | None:
        part = PARTS.get(source.split)
        asked = tree.find(f"v2_OpenEnded_mscoco_{part}_questions.json")
        answered = tree.find(f"v2_mscoco_{part}_annotations.json")
        if not asked and not answered:
            return None
        if not asked or not answered:
            missing = "annotations" if asked else "questions"
            raise UserError(
                f"{label(source)}: {source.path} has no {missing} of {part}; they come in two files"
            )

        def photo(record: Record) -> str:
            return coco_file_name(record.get("image_id"), f"COCO_{part}_")

        return Download(partial(_annotated, tree, asked, answered), tree, photo)


def answers(published: Any) -> list[str]:
    """All ten, as text; the hub and the json wrap each in an object with its confidence."""
    found = published if isinstance(published, Sequence) and not isinstance(published, str) else []
    texts = (clean(one.get("answer") if isinstance(one, dict) else one) for one in found)
    return [text for text in texts if text]


def _annotated(tree: Tree, asked: str, answered: str) -> list[Any]:
    """Every question with its annotation."""
    listed = partial(tree.json_list, of="VQAv2", object_hook=_answer_alone)
    questions = listed(asked, "questions")
    annotations = {
        str(one.get("question_id")): one
        for one in listed(answered, "annotations")
        if isinstance(one, dict)  # a question without its annotation is quarantined
    }
    return [
        {**annotations.get(str(one.get("question_id")), {}), **one}
        if isinstance(one, dict)
        else one
        for one in questions
    ]


def _answer_alone(item: dict[str, Any]) -> Any:
    """4.4 million answers fit into memory as shared texts, not as objects."""
    if "answer_confidence" not in item:
        return item
    answer = item.get("answer")
    return sys.intern(answer) if isinstance(answer, str) else answer
