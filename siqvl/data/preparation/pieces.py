"""Pieces: the checked rows of one block of a source, in a file that is whole or not there.

A piece holds BLOCK consecutive rows of one entry of a recipe's `sources`, the refused ones too. It
is written under another name, synced to disk and renamed, and its name ends with a digest of its
content: a piece that was torn on its way is told from a whole one. Killed preparation goes on from
the pieces that are there; tasks side by side hand theirs to the one that merges them.

They are Arrow files, as nothing is quicker to write and to read again: all of them are read once.
"""

from __future__ import annotations

import hashlib
import json
import re
import uuid
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyarrow as pa
from xxhash import xxh3_128

from siqvl.data.preparation.arrow_arrays import arrow_batch
from siqvl.data.preparation.checks import Checked
from siqvl.data.schema import RowKind, arrow_schema, features
from siqvl.files import DigestedFile, atomic_file, sync

BLOCK = 256  # rows of a piece
GROUP_ROWS = 64  # rows of a row group: what is in memory at once,
GROUP_BYTES = 8 * 2**20  # or fewer, when their pictures are large
NAME = re.compile(r"piece-(\d{4})-(\d{8})-([0-9a-f]{32})\.arrow")
FORMAT = 3  # of pieces; until 1 they were parquet, until 2 their names ended with a sha256
SUMMARY = b"siqvl"  # key of the summary in the metadata of a piece's last batch, which has no rows
DESCRIPTION = "pieces.json"


@dataclass
class Summary:
    """What a piece (or several) says about its rows without being read."""

    rows: int = 0
    quarantined: Counter[str] = field(default_factory=Counter)  # reason -> rows
    examples: dict[str, dict[str, str]] = field(default_factory=dict)  # reason -> first line
    file: str = ""  # name of the piece that was written

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
    """Stored columns (empty for refused rows), and what was found out about each row.

    `images` are places among the pictures of a batch, whose first row has them all in `pictures`: a
    picture that several rows share is there once.
    """
    columns = {field.name: field.type for field in arrow_schema(kind)}
    columns |= {"images": pa.list_(pa.int32()), "pictures": pa.list_(pa.binary())}
    return pa.schema(columns | {"checked": pa.string(), "thumbs": pa.binary()})


def write_piece(
    folder: Path, source: int, block: int, rows: Iterable[Checked], kind: RowKind
) -> Summary:
    """Write the checked rows of a block; there is no file of a block without rows."""
    summary, schema = Summary(), piece_schema(kind)
    unfinished = folder / f".piece-{source:04d}-{block:08d}-{uuid.uuid4().hex}"
    try:
        with (
            closing(DigestedFile(unfinished, xxh3_128())) as file,
            pa.PythonFile(file, "w") as stream,
            pa.ipc.new_file(stream, schema) as writer,
        ):
            for group in _groups(rows):
                for checked in group:
                    summary.rows += 1
                    if checked.reason:
                        summary.refuse(line_of(checked, checked.reason, checked.detail))
                writer.write_batch(_batch(group, schema))
            writer.write_batch(arrow_batch([], schema), {SUMMARY: json.dumps(vars(summary))})
        if summary.rows:
            sync(unfinished)
            summary.file = f"piece-{source:04d}-{block:08d}-{file.digest}.arrow"
            unfinished.rename(folder / summary.file)
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


def _batch(group: list[Checked], schema: pa.Schema) -> pa.RecordBatch:
    pictures: dict[bytes, int] = {}  # -> place
    records = [_record(checked, pictures) for checked in group]
    records[0]["pictures"] = [*pictures]
    return arrow_batch(records, schema)


def _record(checked: Checked, pictures: dict[bytes, int]) -> dict[str, Any]:
    """A row as it is written; its pictures are added to those of its batch."""
    about = {**vars(checked), "row": None, "thumbnails": None}
    record = {**(checked.row or {}), "checked": json.dumps(about)}
    if checked.row:
        record["thumbs"] = checked.thumbnails
        images = (image["bytes"] for image in checked.row["images"])
        record["images"] = [pictures.setdefault(image, len(pictures)) for image in images]
    return record


def read_piece(path: Path, kind: RowKind) -> Iterator[tuple[list[Checked], pa.Table]]:
    """The rows of a piece, a batch at a time: what was found out, and their stored columns."""
    columns = features(kind).arrow_schema
    with pa.OSFile(str(path)) as file, pa.ipc.open_file(file) as reader:
        for number in range(reader.num_record_batches - 1):
            batch = reader.get_batch(number)
            found = [Checked(**json.loads(text)) for text in batch["checked"].to_pylist()]
            for checked, thumbnails in zip(found, batch["thumbs"].to_pylist(), strict=True):
                checked.thumbnails = thumbnails or b""
            stored = {name: batch[name] for name in columns.names} | {"images": _images(batch)}
            yield found, pa.Table.from_pydict(stored, columns)


def _images(batch: pa.RecordBatch) -> pa.Array:
    """The column `images` as it is stored."""
    places, pictures = batch["images"], batch["pictures"].flatten()
    which = places.flatten()
    if not which.equals(pa.array(range(len(pictures)), pa.int32())):  # some are shared
        pictures = pictures.take(which)
    files = [pictures, pa.nulls(len(pictures), pa.string())]
    images = pa.StructArray.from_arrays(files, ["bytes", "path"])
    return pa.ListArray.from_arrays(places.offsets, images, mask=places.is_null())


def read_summary(path: Path) -> Summary:
    """The summary of a whole piece."""
    with pa.OSFile(str(path)) as file, pa.ipc.open_file(file) as reader:
        last = reader.get_batch_with_custom_metadata(reader.num_record_batches - 1)
    found = json.loads(last.custom_metadata[SUMMARY])
    return Summary(found["rows"], Counter(found["quarantined"]), found["examples"])


def find_pieces(folder: Path) -> dict[tuple[int, int], Path]:
    """(source, block) -> file, in order. Whether they are whole is not looked at."""
    found = {}
    for path in sorted(folder.iterdir()):
        if NAME.fullmatch(path.name):
            found[key_of(path.name)] = path
    return found


def key_of(name: str) -> tuple[int, int]:
    """(source, block) of a piece's name."""
    _, source, block, _ = name.split("-")
    return int(source), int(block)


def is_whole(path: Path) -> bool:
    """Whether a piece is as it was written."""
    with open(path, "rb") as file:
        digest = hashlib.file_digest(file, xxh3_128).hexdigest()
    return digest == path.stem.rpartition("-")[2]


def write_json(path: Path, content: Any) -> None:
    """Writes a small file that is whole or not there."""
    with atomic_file(path) as partial:
        partial.write_text(json.dumps(content) + "\n", encoding="utf-8")


def end_file(folder: Path, source: int) -> Path:
    """Where a folder says that all its pieces of a source are there, and how many rows it has."""
    return folder / f"source-{source:04d}.json"


def read_end(folder: Path, source: int) -> dict[str, Any]:
    """What such a file says: `rows`, and `choices_are`, how answers of rows with choices are read.

    The latter is None where there are no such rows.
    """
    return {"choices_are": None} | json.loads(end_file(folder, source).read_text(encoding="utf-8"))
