"""The distinct pictures of a prepared folder, and training pictures that are in a benchmark."""

from __future__ import annotations

import logging
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from siqvl.data.manifest import Manifest, Shard
from siqvl.data.preparation.checks import Checked
from siqvl.data.preparation.duplicates import PIXELS, LookAlikes
from siqvl.data.shards import checked_shard, described_shard
from siqvl.recipe import LeaveOut

logger = logging.getLogger(__name__)

PICTURES = "images.parquet"
ROWS_AT_ONCE = 4096


@dataclass(frozen=True)
class HeldOut:
    """The benchmarks whose pictures training rows are compared with.

    Attributes:
        folders: name of a benchmark -> its prepared folder.
        unchecked: why the check does not run, or not against all benchmarks; one sentence each.
    """

    folders: dict[str, Path] = field(default_factory=dict)
    unchecked: list[str] = field(default_factory=list)


#: Where nobody said what is held out.
NOT_GIVEN = HeldOut(unchecked=["no benchmarks were given"])


class PictureWriter:
    """Writes `images.parquet`: hash, thumbnail and first row of each distinct picture."""

    def __init__(self, folder: Path) -> None:
        columns = {"hash": pa.string(), "thumbnail": pa.binary(PIXELS), "row": pa.string()}
        self._schema = pa.schema(columns)
        self._path = folder / PICTURES
        self._file = pq.ParquetWriter(self._path, self._schema, compression="zstd")
        self._waiting: list[dict[str, str | bytes]] = []
        self._uses: dict[bytes, bool] = {}  # hash -> whether several rows use it

    def add(self, checked: Checked) -> None:
        """Note the pictures of a stored row."""
        for index, found in enumerate(dict.fromkeys(checked.image_hashes)):
            digest = bytes.fromhex(found)[:16]
            if digest in self._uses:
                self._uses[digest] = True
                continue
            self._uses[digest] = False
            place = checked.image_hashes.index(found) if index else 0
            thumbnail = checked.thumbnails[place * PIXELS : (place + 1) * PIXELS]
            self._waiting.append({"hash": found, "thumbnail": thumbnail, "row": checked.id})
            if len(self._waiting) == ROWS_AT_ONCE:
                self._flush()

    def _flush(self) -> None:
        self._file.write_table(pa.Table.from_pylist(self._waiting, self._schema))
        self._waiting = []

    @property
    def distinct(self) -> int:
        return len(self._uses)

    @property
    def shared(self) -> int:
        return sum(self._uses.values())

    @property
    def file(self) -> Shard:
        """What was written, once it is closed."""
        return described_shard(self._path, self.distinct)

    def __enter__(self) -> PictureWriter:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is None and self._waiting:
            self._flush()
        self._file.close()


class Leaks:
    """Tells training rows that show a picture of a benchmark.

    Args:
        benchmarks: that are held out; what is not compared with is said in the log.
        level: rows to leave out; the others that are found are only counted.
        near: as for `LookAlikes`.

    Raises:
        UserError: one of them is not there, or damaged.
    """

    def __init__(self, benchmarks: HeldOut, level: LeaveOut, near: float) -> None:
        self.rows: dict[str, Counter[str]] = {}
        self.unchecked = benchmarks.unchecked
        self._level = level
        self._hashes: dict[bytes, dict[str, str]] = {}  # -> benchmark -> its row
        self._alike: dict[str, LookAlikes] = {}
        self._seen: dict[bytes, dict[str, str]] = {}  # pictures that look like a benchmark's
        for reason in self.unchecked:
            which = "runs in part" if benchmarks.folders else "does not run"
            logger.warning("the check for pictures of benchmarks %s: %s", which, reason)
        for name, folder in sorted(benchmarks.folders.items()):
            self._read(name, folder, near)

    def _read(self, name: str, folder: Path, near: float) -> None:
        self.rows[name] = Counter(exact=0, near=0)
        alike = self._alike[name] = LookAlikes(near)
        file = checked_shard(folder / PICTURES, Manifest.read(folder).pictures, verify=True)
        for batch in pq.read_table(file).to_batches(ROWS_AT_ONCE):
            for picture in batch.to_pylist():
                digest = bytes.fromhex(picture["hash"])[:16]
                self._hashes.setdefault(digest, {})[name] = picture["row"]
                alike.add(picture["thumbnail"], picture["row"])

    def find(self, checked: Checked) -> tuple[str, str] | None:
        """Count the row's leaks; reason and detail if it is to be left out for one."""
        if not self._alike or not checked.image_hashes:
            return None
        exact: dict[str, str] = {}  # benchmark -> its row
        near: dict[str, str] = {}
        for index, found in enumerate(checked.image_hashes):
            digest = bytes.fromhex(found)[:16]
            exact = self._hashes.get(digest, {}) | exact
            thumbnail = checked.thumbnails[index * PIXELS : (index + 1) * PIXELS]
            near = self._looks_like(digest, thumbnail) | near
        for name in exact:
            self.rows[name]["exact"] += 1
        for name in near.keys() - exact.keys():
            self.rows[name]["near"] += 1
        for name in self._alike:
            if name in exact and self._level != "none":
                return f"picture of benchmark {name}", f"the picture of {exact[name]}"
            if name in near and self._level == "near":
                return f"picture of benchmark {name}", f"looks like the picture of {near[name]}"
        return None

    def _looks_like(self, digest: bytes, thumbnail: bytes) -> dict[str, str]:
        """Benchmark -> its row; remembered, as many rows may share a picture."""
        if digest not in self._seen:
            matches = {name: alike.find(thumbnail) for name, alike in self._alike.items()}
            found = {name: row for name, row in matches.items() if row is not None}
            self._seen[digest] = found or _NOTHING
        return self._seen[digest]


_NOTHING: dict[str, str] = {}  # shared, as most pictures look like none
