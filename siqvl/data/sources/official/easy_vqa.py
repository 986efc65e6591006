"""easy-VQA (github.com/vzhou842/easy-VQA, MIT): 64-pixel pictures of one coloured shape.

`path` is the published `data` folder, a folder above it, or the zip archive. Each split holds
`questions.json` with [question, answer, image id] and `images/<id>.png`.
"""

from __future__ import annotations

import random
from pathlib import Path

from siqvl.data.schema import Row, RowKind, evaluation_row, preference_row, sft_row
from siqvl.data.sources.base import (
    Items,
    damaged_row,
    label,
    local_path,
    require_split,
    require_subsets,
)
from siqvl.data.sources.reading.tree import Tree
from siqvl.errors import UserError
from siqvl.recipe import Source

SPLITS = ("train", "test")
#: By type of question.
ANSWERS = {
    "yes/no": ("yes", "no"),
    "shape": ("circle", "rectangle", "triangle"),
    "color": ("black", "blue", "brown", "gray", "green", "red", "teal", "yellow"),
}


class EasyVQA:
    """Adapter `easy_vqa`."""

    kinds = frozenset(RowKind)

    def check(self, source: Source, kind: RowKind) -> None:
        require_split(source, SPLITS)
        require_subsets(source, [])
        find(local_path(source), source)

    def rows(self, source: Source, kind: RowKind, seed: int) -> Items:
        return self._items(source, kind, seed, pictured=True)

    def questions(self, source: Source, seed: int) -> Items:
        """Evaluation rows without their pictures."""
        return self._items(source, RowKind.EVALUATION, seed, pictured=False)

    def _items(self, source: Source, kind: RowKind, seed: int, *, pictured: bool) -> Items:
        tree, root = find(local_path(source), source)
        folder = f"{root}{source.split}"
        questions = tree.json_list(f"{folder}/questions.json", of="easy-VQA")

        def build(index: int) -> Row:
            row_id = f"easy_vqa/{source.split}/{index:06d}"
            try:
                question, answer, image = questions[index]
            except (TypeError, ValueError):
                reason = f"expected [question, answer, image], got {questions[index]!r}"[:120]
                return damaged_row(row_id, reason, source="easy_vqa")
            name = f"{folder}/images/{image}.png"
            images = [tree.picture_at(name) if pictured else name]
            about = {"source": "easy_vqa", "image_id": image}
            if kind is RowKind.EVALUATION:
                about |= {"benchmark": "easy_vqa", "split": source.split}
                about |= {"type": question_type(answer)}
                return evaluation_row(row_id, images, question, [answer], **about)
            if kind is RowKind.SFT:
                return sft_row(row_id, images, question, answer, **about)
            wrong = wrong_answer(answer, random.Random(f"{seed}/{row_id}"))
            return preference_row(row_id, images, question, answer, wrong, **about)

        return Items(len(questions), build)


def find(path: Path, source: Source) -> tuple[Tree, str]:
    """The folder or archive, and the prefix of the split folders in it.

    Raises:
        UserError: it does not hold easy-VQA.
    """
    if path.is_dir() and not list(path.rglob("questions.json")):
        path = next(iter(sorted(path.glob("*.zip"))), path)
    tree = Tree(path)
    ending = f"{source.split}/questions.json"
    for name in tree.names():
        if name == ending or name.endswith(f"/{ending}"):
            return tree, name.removesuffix(ending)
    raise UserError(
        f"{label(source)}: {path} has no {ending}; expected easy-VQA's `data` or its zip"
    )


def question_type(answer: str) -> str:
    """What is asked for; empty for an answer that none of the published ones is like."""
    return next((name for name, answers in ANSWERS.items() if answer in answers), "")


def wrong_answer(answer: str, rng: random.Random) -> str:
    """Another answer of the same kind."""
    for answers in ANSWERS.values():
        if answer in answers:
            return rng.choice([other for other in answers if other != answer])
    return "no"
