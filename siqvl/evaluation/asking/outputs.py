"""What a model answered so far, kept on disk: files of some answers that are whole or not there.

A killed evaluation goes on from the files it left; shards hand theirs to the one that merges them.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from siqvl.errors import UserError
from siqvl.evaluation.asking.prompts import Output
from siqvl.evaluation.asking.question_plan import Ask
from siqvl.files import atomic_file

#: Raise it whenever what is written or how answers come about changes.
VERSION = 3
DESCRIPTION = "about.json"
_SCHEMA = pa.schema(
    {"player": pa.string(), "row": pa.int64(), "generation": pa.string(), "margin": pa.float64()}
)


def describe(folder: Path, key: str, prompt: str) -> None:
    """Makes the folder, and notes what is answered there.

    Args:
        key: digest of all that decides the answers.
        prompt: the first question as the model reads it.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with atomic_file(folder / DESCRIPTION) as partial:
        partial.write_text(json.dumps({"key": key, "prompt": prompt}), encoding="utf-8")


def first_prompt(folder: Path, key: str) -> str:
    """Reads the prompt that `describe` was told.

    Raises:
        UserError: the folder is not there, or its answers are to other questions or another
            model's.
    """
    path = folder / DESCRIPTION
    if not path.is_file():
        raise UserError(f"{folder} holds no answers; run the shards of this evaluation first")
    about = json.loads(path.read_text(encoding="utf-8"))
    if about["key"] != key:
        raise UserError(
            f"{folder} holds the answers of another checkpoint, recipe or data; evaluate all "
            "shards with the same ones"
        )
    return about["prompt"]


def write_outputs(path: Path, outputs: Iterable[tuple[Ask, Output]]) -> None:
    """Writes some answers; the file is there whole or not at all."""
    lines = [
        {"player": player, "row": row, "generation": output.generation, "margin": output.margin}
        for (player, row), output in outputs
    ]
    with atomic_file(path) as partial:
        pq.write_table(pa.Table.from_pylist(lines, _SCHEMA), partial)


def read_outputs(folders: Iterable[Path]) -> dict[Ask, Output]:
    """Reads all answers in some folders."""
    found: dict[Ask, Output] = {}
    for folder in folders:
        for path in sorted(folder.glob("*.parquet")):
            for line in pq.read_table(path, schema=_SCHEMA).to_pylist():
                output = Output(line["generation"], line["margin"])
                found[line["player"], line["row"]] = output
    return found
