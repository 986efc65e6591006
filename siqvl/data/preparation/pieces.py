"""Pieces: the checked rows of one block of a source, in a file that is whole or not there.

A piece holds BLOCK consecutive rows of one entry of a recipe's `sources`, the refused ones too. It
is written under another name, synced to disk and renamed, and its name ends with the sha256 of its
content: a piece that was torn on its way is told from a whole one. Killed preparation goes on from
the pieces that are there; tasks side by side hand theirs to the one that merges them.
"""

from __future__ import annotations

import json
import os
import re
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from siqvl.data.preparation.checks import Checked
from siqvl.data.schema import RowKind, features
from siqvl.files import atomic_file, file_sha256, sync

BLOCK = 256  # rows of a piece
GROUP_ROWS = 64  # rows of a row group: what is in memory at once,
GROUP_BYTES = 8 * 2**20  # or fewer, when their pictures are large
KEPT_BYTES = 16  # of the sha256 in a name
NAME = re.compile(r"piece-(\d{4})-(\d{8})-([0-9a-f]{32})\.parquet")
SUMMARY = "siqvl"  # key of the summary in a piece's footer
DESCRIPTION = "pieces.json"


@dataclass
class Summary:
    """What a piece (or several) says about its rows without being read."""

    rows: int = 0
    quarantined: Counter[str] = field(default_factory=Counter)  # reason -> rows
    examples: dict[str, dict[str, str]] = field(default_factory=dict)  # reason -> first line

    @property
    def bad(self) -> int:
        return self.quarantined.total()

    def refuse(self, line: dict[str, str]) -> None:
        """Count a bad row by its line in the quarantine list."""
        self.quarantined[line["reason"]] += 1
        self.examples.setdefault(line["reason"], line)

    def add(self, other: Summary) -> None:
        self.rows += other.rows
        self.quarantined.update(other.quarantined)
        self.examples = {**other.examples, **self.examples}

    def commonest(self) -> str:
        """The commonest reason with its count and an example, as part of a sentence."""
        reason, count = min(self.quarantined.items(), key=lambda item: (-item[1], item[0]))
        example = self.examples[reason]
        detail = f": {example['detail']}" if example["detail"] else ""
        return f"`{reason}` ({count} times, for example {example['id']}{detail})"


def line_of(checked: Checked, reason: str, detail: str) -> dict[str, str]:
    """A row's line in the quarantine list."""
    return {"id": checked.id, "source": checked.source, "reason": reason, "detail": detail}


def piece_schema(kind: RowKind) -> pa.Schema:
    """Stored columns (empty for refused rows), and what was found out about each row."""
    columns = list(features(kind).arrow_schema)
    return pa.schema([*columns, pa.field("checked", pa.string()), pa.field("thumbs", pa.binary())])


def write_piece(
    folder: Path, source: int, block: int, rows: Iterable[Checked], kind: RowKind
) -> Summary:
    """Write the checked rows of a block; there is no file of a block without rows."""
    summary, schema = Summary(), piece_schema(kind)
    unfinished = folder / f".piece-{source:04d}-{block:08d}-{os.getpid()}"
    try:
        with pq.ParquetWriter(unfinished, schema, compression="zstd") as writer:
            for group in _groups(rows):
                for checked in group:
                    summary.rows += 1
                    if checked.reason:
                        summary.refuse(line_of(checked, checked.reason, checked.detail))
                writer.write_table(pa.Table.from_pylist([_record(one) for one in group], schema))
            writer.add_key_value_metadata({SUMMARY: json.dumps(vars(summary))})
        if summary.rows:
            sync(unfinished)
            digest = file_sha256(unfinished)[: 2 * KEPT_BYTES]
            unfinished.rename(folder / f"piece-{source:04d}-{block:08d}-{digest}.parquet")
    finally:
        unfinished.unlink(missing_ok=True)
    return summary


def _groups(rows: Iterable[Checked]) -> Iterator[list[Checked]]:
    group: list[Checked] = []
    held = 0
    for checked in rows:
        group.append(checked)
        held += checked.stored_bytes
        if len(group) == GROUP_ROWS or held >= GROUP_BYTES:
            yield group
            group, held = [], 0
    if group:
        yield group


def _record(checked: Checked) -> dict[str, Any]:
    about = {**vars(checked), "row": None, "thumbnails": None}
    thumbnails = checked.thumbnails if checked.row else None
    return {**(checked.row or {}), "checked": json.dumps(about), "thumbs": thumbnails}


def read_piece(path: Path, kind: RowKind) -> Iterator[tuple[list[Checked], pa.Table]]:
    """The rows of a piece, a row group at a time: what was found out, and their stored columns."""
    columns = features(kind).arrow_schema
    with closing(pq.ParquetFile(path)) as file:
        for number in range(file.num_row_groups):
            table = file.read_row_group(number)
            found = [Checked(**json.loads(text)) for text in table["checked"].to_pylist()]
            for checked, thumbnails in zip(found, table["thumbs"].to_pylist(), strict=True):
                checked.thumbnails = thumbnails or b""
            yield found, table.select(columns.names).cast(columns)


def read_summary(path: Path) -> Summary:
    """The summary of a whole piece."""
    found = json.loads(pq.read_metadata(path).metadata[SUMMARY.encode()])
    return Summary(found["rows"], Counter(found["quarantined"]), found["examples"])


def find_pieces(folder: Path) -> dict[tuple[int, int], Path]:
    """(source, block) -> file, in order. Whether they are whole is not looked at."""
    found = {}
    for path in sorted(folder.iterdir()):
        if match := NAME.fullmatch(path.name):
            found[int(match.group(1)), int(match.group(2))] = path
    return found


def is_whole(path: Path) -> bool:
    """Whether a piece is as it was written."""
    return file_sha256(path).startswith(path.stem.rpartition("-")[2])


def write_json(path: Path, content: Any) -> None:
    """Writes a small file that is whole or not there."""
    with atomic_file(path, os.getpid()) as partial:
        partial.write_text(json.dumps(content) + "\n", encoding="utf-8")


def end_file(folder: Path, source: int) -> Path:
    """Where a folder says that all its pieces of a source are there, and how many rows it has."""
    return folder / f"source-{source:04d}.json"
