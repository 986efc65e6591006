"""PuzzleVQA (github.com/declare-lab/LLM-PuzzleTest, MIT): abstract patterns with written reasoning.

`path` is the folder with `<template>.json` (JSON lines, 100 items each) and either
`images/<template>/…png` or a zip archive of images. Items without an image there are left out.
`subsets` are the templates, so that whole templates can be held out: items of one template
resemble one another.
"""

from __future__ import annotations

import json
import random
import re
from pathlib import Path, PurePosixPath
from typing import Any

from siqvl.data.schema import (
    REASONING_PROMPT,
    Row,
    RowKind,
    evaluation_row,
    preference_row,
    reasoned_answer,
    sft_row,
    with_options,
)
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

SPLITS = ("train", "test", "all")
TEXTS = ("image", "question", "caption", "explanation", "deduction")
TEST_EVERY = 5  # within a template, every fifth item is test

Item = dict[str, Any]  # a published line


class PuzzleVQA:
    """Adapter `puzzlevqa`."""

    kinds = frozenset(RowKind)

    def check(self, source: Source, kind: RowKind) -> None:
        require_split(source, SPLITS)
        path = local_path(source)
        known = templates(path)
        if not known:
            raise UserError(f"{label(source)}: {path} has no <template>.json of PuzzleVQA")
        require_subsets(source, known)
        if not find_images(path):
            raise UserError(f"{label(source)}: {path} has no images/ folder and no zip of images")

    def rows(self, source: Source, kind: RowKind, seed: int) -> Items:
        path = local_path(source)
        images = find_images(path)
        items = [
            (template, index, item)
            for template in source.subsets or templates(path)
            for index, item in enumerate(read_items(path, template))
            if in_split(index, source.split) and (item is None or picture_name(item) in images)
        ]

        def build(index: int) -> Row:
            template, number, item = items[index]
            row_id = f"puzzlevqa/{template}/{number:03d}"
            if item is None:
                reason = f"line {number + 1} of {template}.json is no item of PuzzleVQA"
                return damaged_row(row_id, reason, source=f"puzzlevqa/{template}")
            tree, name = images[picture_name(item)]
            image = tree.picture_at(name)
            return puzzle_row(kind, row_id, template, source.split, item, image, seed)

        return Items(len(items), build)


def puzzle_row(
    kind: RowKind, row_id: str, template: str, split: str, item: Item, image: Any, seed: int
) -> Row:
    """A published item as a canonical row; answers and options that are ints become strings."""
    answer = str(item["answer"])
    options = [str(option) for option in item["options"]]
    question = with_options(item["question"], options)
    about = {"source": f"puzzlevqa/{template}", "template": template}
    if kind is RowKind.EVALUATION:
        about |= {"benchmark": "puzzlevqa", "split": split}
        return evaluation_row(row_id, [image], question, [answer], choices=options, **about)
    prompt = question + REASONING_PROMPT
    seen = f"{item['caption']} {item['explanation']}"
    right = reasoned_answer(f"{seen} {item['deduction']}", answer)
    if kind is RowKind.SFT:
        return sft_row(row_id, [image], prompt, right, answer=answer, choices=options, **about)
    rng = random.Random(f"{seed}/{row_id}")
    wrong = rng.choice([option for option in options if option != answer])
    rejected = reasoned_answer(f"{seen} {replace_last(item['deduction'], answer, wrong)}", wrong)
    return preference_row(
        row_id, [image], prompt, right, rejected, answer=answer, choices=options, **about
    )


def replace_last(text: str, old: str, new: str) -> str:
    """Replace the last whole-word occurrence: a deduction states its answer at its end."""
    matches = list(re.finditer(rf"(?<!\w){re.escape(old)}(?!\w)", text))
    return text[: matches[-1].start()] + new + text[matches[-1].end() :] if matches else text


def in_split(index: int, split: str) -> bool:
    return split == "all" or (index % TEST_EVERY == TEST_EVERY - 1) == (split == "test")


def templates(path: Path) -> list[str]:
    """Names of the templates in a folder."""
    return sorted(file.stem for file in path.glob("*.json"))


def picture_name(item: Item) -> str:
    """The file name of an item's picture, without its folder."""
    return PurePosixPath(item["image"]).name


def read_items(path: Path, template: str) -> list[Item | None]:
    """The items of one template, one a line; None for a line that is none.

    Raises:
        UserError: the file cannot be read.
    """
    try:
        lines = (path / f"{template}.json").read_bytes().splitlines()
    except OSError as error:
        raise UserError(f"{path / template}.json cannot be read ({error})") from None
    return [read_item(line) for line in lines if line.strip()]


def read_item(line: bytes) -> Item | None:
    """An item with all its fields, at least one of its options being wrong; or None."""
    try:
        item = json.loads(line)
    except (ValueError, RecursionError):
        return None
    if not isinstance(item, dict) or not all(isinstance(item.get(key), str) for key in TEXTS):
        return None
    options, answer = item.get("options"), str(item.get("answer"))
    if not isinstance(options, list) or answer not in map(str, options):
        return None
    return item if any(str(option) != answer for option in options) else None


def find_images(path: Path) -> dict[str, tuple[Tree, str]]:
    """File name of every image -> where it lies; names are unique over the templates."""
    folder = path / "images"
    places = [folder] if folder.is_dir() else sorted(path.glob("*.zip"))
    return {
        PurePosixPath(name).name: (tree, name)
        for tree in map(Tree, places)
        for name in tree.names()
        if name.endswith(".png")
    }
