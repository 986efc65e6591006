"""GQA (Hudson & Manning 2019, arXiv:1902.09506): questions and images are published apart.

`path` is the hub id (lmms-lab/GQA: configs `train_balanced_instructions`, `train_balanced_images`
…), a folder with sub-folders of these names, or the official download:
`train_balanced_questions.json` and `images/<id>.jpg` somewhere below one folder. `subsets` are the
parts without those endings (`train_balanced`, `testdev_balanced`); the split is the word they begin
with.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator
from functools import partial
from itertools import chain
from pathlib import Path
from typing import Any, NamedTuple

from siqvl.data.schema import Row, RowKind, evaluation_row, sft_row
from siqvl.data.sources.base import Items, Stream, damaged_row, label, require_subsets
from siqvl.data.sources.formats.record import DamagedRecord
from siqvl.data.sources.reading.picture_fields import picture
from siqvl.data.sources.reading.tabular import check_table, interleaved, is_local, records
from siqvl.data.sources.reading.tree import Tree
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
    type: str  # its structure, by which GQA's tables are split: query, verify, choose, …


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
        if source.path is None or in_two_tables(source):
            for subset in source.subsets:
                for part in ("instructions", "images"):
                    check_table(hub_part(source, subset, part))
            return
        names = Tree(Path(source.path)).names()
        for subset in source.subsets:
            question_files(names, subset, source)

    def rows(self, source: Source, kind: RowKind, seed: int) -> Items | Stream:
        if not in_two_tables(source):
            return local_rows(source, kind)
        streams = [hub_rows(source, subset, kind) for subset in source.subsets]
        return Stream(interleaved(streams))

    def questions(self, source: Source, seed: int) -> Items | Stream:
        """Evaluation rows whose pictures stay names in the official download."""
        if in_two_tables(source):  # there, pictures are streamed with their questions
            return self.rows(source, RowKind.EVALUATION, seed)
        return local_rows(source, RowKind.EVALUATION, pictured=False)


def in_two_tables(source: Source) -> bool:
    """Whether questions and images are tables as on the hub, which may lie on disk."""
    return not is_local(source) or any(
        Path(str(source.path), f"{subset}_instructions").is_dir() for subset in source.subsets
    )


def local_rows(source: Source, kind: RowKind, *, pictured: bool = True) -> Items:
    """Rows of the official download, in published order."""
    tree = Tree(Path(str(source.path)))
    names = tree.names()
    questions = [
        (subset, question(identity, record))
        for subset in source.subsets
        for file in question_files(names, subset, source)
        for identity, record in published_questions(tree, file)
    ]

    def build(index: int) -> Row:
        subset, asked = questions[index]
        name = f"{asked.image}.jpg"
        return gqa_row(kind, asked, tree.picture(name) if pictured else name, subset)

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


def published_questions(tree: Tree, file: str) -> list[tuple[str, Any]]:
    """Id and record of every question in a file."""
    content = tree.json(file)
    if not isinstance(content, dict):
        raise UserError(f"{tree.path}: {file} holds no questions by id; is it GQA's?")
    return list(content.items())


def hub_rows(source: Source, subset: str, kind: RowKind) -> Iterator[Callable[[], Row]]:
    """Image after image, each with all its questions: pictures are streamed only once.

    What is damaged, and questions whose image is not there, are rows too, which are quarantined.
    """
    asked: defaultdict[str, list[Question]] = defaultdict(list)
    part = hub_part(source, subset, "instructions")
    for number, (read, _) in enumerate(records(part, part.subsets[0])):
        try:
            record = read()
        except DamagedRecord as error:
            yield partial(_damaged, f"gqa/{subset}/instructions/{number}", error, subset)
            continue
        one = question(str(record.get("id")), record)
        asked[one.image].append(one)
    part = hub_part(source, subset, "images")
    for number, (read, find) in enumerate(records(part, part.subsets[0])):
        try:
            record = read()
        except DamagedRecord as error:
            yield partial(_damaged, f"gqa/{subset}/images/{number}", error, subset)
            continue
        image = partial(picture, record.get("image"), find)
        for one in asked.pop(str(record.get("id")), []):
            yield partial(gqa_row, kind, one, image, subset)
    for one in chain.from_iterable(asked.values()):
        yield partial(gqa_row, kind, one, f"{one.image}.jpg", subset)


def _damaged(row_id: str, error: DamagedRecord, subset: str) -> Row:
    return damaged_row(row_id, str(error), source=f"gqa/{subset}")


def hub_part(source: Source, subset: str, part: str) -> Source:
    """The hub's config of one part of a subset."""
    return source.model_copy(update={"subsets": [f"{subset}_{part}"]})


def question(identity: str, record: Any) -> Question:
    """A published question, of the json or of the hub; empty, and so refused, if it is none."""
    record = record if isinstance(record, dict) else {}
    types = record.get("types")
    return Question(
        identity,
        str(record.get("imageId") or ""),
        str(record.get("question") or ""),
        str(record.get("answer") or ""),
        str(record.get("fullAnswer") or ""),
        str(types.get("structural") or "") if isinstance(types, dict) else "",
    )


def gqa_row(kind: RowKind, asked: Question, image: Any, subset: str) -> Row:
    """One question about one picture, or about what reading the picture now gives."""
    image = image() if callable(image) else image
    row_id = f"gqa/{subset}/{asked.id}"
    about = {"source": f"gqa/{subset}", "image_id": asked.image, "full_answer": asked.full_answer}
    if kind is RowKind.EVALUATION:
        about |= {"benchmark": "gqa", "split": subset.split("_")[0], "type": asked.type}
        return evaluation_row(row_id, [image], asked.question, [asked.answer], **about)
    return sft_row(row_id, [image], asked.question, asked.answer, **about)
