"""GQA (Hudson & Manning 2019, arXiv:1902.09506): questions and images are published apart.

`path` is the hub id (lmms-lab/GQA: configs `train_balanced_instructions`, `train_balanced_images`
…) or the official download: `train_balanced_questions.json` and `images/<id>.jpg` somewhere below
one folder. `subsets` are the parts without those endings (`train_balanced`, `testdev_balanced`);
the split is the word they begin with.
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from siqvl.data.schema import Row, RowKind, evaluation_row, sft_row
from siqvl.data.sources.base import Items, label, require_subsets
from siqvl.data.sources.tabular import check_table, image_value, interleaved, is_local, records
from siqvl.data.sources.tree import Tree
from siqvl.errors import UserError
from siqvl.recipe import Source

SUBSETS = tuple(
    f"{split}_{part}" for split in ("train", "val", "testdev") for part in ("balanced", "all")
)


class Question(NamedTuple):
    """One published question; `answer` is the short one that GQA is scored on."""

    id: str
    image: str
    question: str
    answer: str
    full_answer: str


class GQA:
    """Adapter `gqa`."""

    kinds = frozenset({RowKind.SFT, RowKind.EVALUATION})

    def check(self, source: Source, kind: RowKind) -> None:
        if not source.subsets:
            raise UserError(f"{label(source)} needs `subsets`: one or more of {', '.join(SUBSETS)}")
        require_subsets(source, SUBSETS)
        for subset in source.subsets:
            if subset.split("_")[0] != source.split:
                raise UserError(
                    f"{label(source)}: subset `{subset}` is not of split `{source.split}`"
                )
        if source.path is None or not is_local(source):
            for part in ("instructions", "images"):
                check_table(hub_part(source, source.subsets[0], part))
            return
        names = Tree(Path(source.path)).names()
        for subset in source.subsets:
            question_files(names, subset, source)

    def rows(self, source: Source, kind: RowKind, seed: int) -> Items | Iterator[Row]:
        if is_local(source):
            return local_rows(source, kind)
        return interleaved([hub_rows(source, subset, kind) for subset in source.subsets])


def local_rows(source: Source, kind: RowKind) -> Items:
    """Rows of the official download, in published order."""
    tree = Tree(Path(str(source.path)))
    names = tree.names()
    images = {Path(name).stem: name for name in names if name.endswith((".jpg", ".png"))}
    questions = [
        (subset, question(identity, record))
        for subset in source.subsets
        for file in question_files(names, subset, source)
        for identity, record in json.loads(tree.read(file)).items()
    ]

    def build(index: int) -> Row:
        subset, asked = questions[index]
        # a picture that is not there stays a name: preparation quarantines the row for it
        name = images.get(asked.image)
        picture = tree.read(name) if name else f"{asked.image}.jpg"
        return gqa_row(kind, asked, picture, subset)

    return Items(len(questions), build)


def question_files(names: list[str], subset: str, source: Source) -> list[str]:
    """`<subset>_questions.json`, or the files of the folder `<subset>_questions`."""
    wanted = f"{subset}_questions"
    files = [
        name
        for name in names
        if name.endswith(".json") and wanted in (Path(name).stem, Path(name).parent.name)
    ]
    if not files:
        raise UserError(f"{label(source)}: no {wanted}.json below {source.path}; correct `path`")
    return files


def hub_rows(source: Source, subset: str, kind: RowKind) -> Iterator[Row]:
    """Image after image, each with all its questions: pictures are streamed only once."""
    asked: defaultdict[str, list[Question]] = defaultdict(list)
    part = hub_part(source, subset, "instructions")
    for record, _ in records(part, part.subsets[0]):
        one = question(str(record["id"]), record)
        asked[one.image].append(one)
    part = hub_part(source, subset, "images")
    for record, folder in records(part, part.subsets[0]):
        picture = image_value(record["image"], folder)
        for one in asked.get(str(record["id"]), []):
            yield gqa_row(kind, one, picture, subset)


def hub_part(source: Source, subset: str, part: str) -> Source:
    """The hub's config of one part of a subset."""
    return source.model_copy(update={"subsets": [f"{subset}_{part}"]})


def question(identity: str, record: dict[str, Any]) -> Question:
    """A published question, of the json or of the hub."""
    return Question(
        identity,
        str(record.get("imageId") or ""),
        str(record.get("question") or ""),
        str(record.get("answer") or ""),
        str(record.get("fullAnswer") or ""),
    )


def gqa_row(kind: RowKind, asked: Question, picture: Any, subset: str) -> Row:
    """One question about one picture."""
    row_id = f"gqa/{subset}/{asked.id}"
    about = {"source": f"gqa/{subset}", "image_id": asked.image, "full_answer": asked.full_answer}
    if kind is RowKind.EVALUATION:
        return evaluation_row(
            row_id,
            [picture],
            asked.question,
            [asked.answer],
            benchmark="gqa",
            split=subset.split("_")[0],
            **about,
        )
    return sft_row(row_id, [picture], asked.question, asked.answer, **about)
