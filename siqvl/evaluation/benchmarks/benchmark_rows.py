"""A benchmark's rows, read and verified once, without their pictures."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from siqvl.data.manifest import Manifest
from siqvl.data.schema import Row, RowKind
from siqvl.data.shards import load_prepared
from siqvl.errors import UserError
from siqvl.evaluation.benchmarks.held_out import check_source
from siqvl.recipe import Benchmark

if TYPE_CHECKING:
    from datasets import Dataset

#: What sources call the kind of a question in `meta`; the first that is there counts.
TYPES = ("template", "type", "question_type")


@dataclass(frozen=True)
class Questions:
    """A benchmark of a recipe with its rows.

    Attributes:
        rows: texts, `image_hashes` and `meta`, in order.
        dataset: the same rows with their pictures.
    """

    benchmark: Benchmark
    rows: list[Row]
    dataset: Dataset
    manifest: Manifest

    @property
    def places(self) -> dict[str, tuple[int, int]]:
        """Hash of each picture -> a row that has it, and its number among the row's pictures."""
        found: dict[str, tuple[int, int]] = {}
        for index, row in enumerate(self.rows):
            for number, image in enumerate(row["image_hashes"]):
                found.setdefault(image, (index, number))
        return found


def load_questions(benchmark: Benchmark, data: Path) -> Questions:
    """Reads the rows of a benchmark that was prepared below `data`.

    Raises:
        UserError: it was not, or from another source, or is damaged.
    """
    folder = data / benchmark.name
    if not folder.is_dir():
        raise UserError(
            f"{data} holds no benchmark `{benchmark.name}`: prepare it with data_prep --stage "
            "evaluation and the same recipe"
        )
    preference = benchmark.method == "preference"
    dataset, manifest = load_prepared(
        folder, RowKind.PREFERENCE if preference else RowKind.EVALUATION
    )
    check_source(manifest, benchmark, data)
    texts: list[Row] = dataset.remove_columns(["images"]).to_list()
    return Questions(benchmark, [_presented(row) for row in texts], dataset, manifest)


def _presented(row: Row) -> Row:
    """A row as people read it: of a preference pair, too, what is asked and what is right."""
    shown: dict[str, Any] = {"type": told(row, *TYPES), "group": told(row, "group")}
    if "prompt" in row:
        chosen, rejected = (_text(row[side]) for side in ("chosen", "rejected"))
        shown |= {
            "question": _text(row["prompt"][-1:]),
            "answers": [chosen],
            "choices": [chosen, rejected],
        }
    return row | shown


def told(row: Row, *names: str) -> str:
    """Finds what a row's source tells under the first of some names; empty when it tells none."""
    meta = json.loads(row["meta"] or "{}")
    return next((str(meta[name]) for name in names if meta.get(name)), "")


def _text(messages: list[dict[str, str]]) -> str:
    return "\n".join(turn["content"] for turn in messages)
