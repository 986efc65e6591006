"""Answers that are there already: a file for each portion, whole or not there, beside the table.

What was asked, of which checkpoint and how, stands in `about.json`. Each file names a digest of the
rows that it answers, so that what has changed since is told from what has not.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from siqvl.errors import UserError, one_line
from siqvl.files import atomic_file
from siqvl.locks import NoLocks, lock

#: Raise it whenever what is written or how answers come about changes.
VERSION = 1
ABOUT = "about.json"
NAME = re.compile(r"(\d{6})\.parquet")
DIGEST = b"siqvl.rows"
SHOWN = 60  # characters of a setting in a sentence
SCHEMA = pa.schema(
    {
        "id": pa.string(),
        "pictures": pa.int32(),
        "question": pa.string(),
        "answer": pa.string(),  # null where there is an error
        "finished": pa.bool_(),  # False: cut at the limit of tokens
        "tokens": pa.int32(),
        "expected": pa.list_(pa.string()),  # published answers; null where there are none
        "error": pa.string(),
    }
)

Line = dict[str, Any]


class PortionFiles:
    """The folder of portions of one table.

    Args:
        out: the table; the folder lies beside it, hidden.
    """

    def __init__(self, out: Path) -> None:
        self.folder = out.with_name(f".{out.name}.parts")

    @contextmanager
    def opened(self, settings: dict[str, Any], *, fresh: bool) -> Iterator[None]:
        """Has the folder to itself while the block runs.

        Args:
            settings: all beside the rows that decides the answers.
            fresh: throws away what is there.

        Raises:
            UserError: answers of other settings are there, another process writes to it, or it
                cannot be made.
        """
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            held = _held(self.folder)
        except OSError as error:
            raise UserError(
                f"nothing can be written to {self.folder.parent} ({one_line(error)}); give another "
                "`-o`"
            ) from None
        try:
            if fresh:
                for path in self.folder.glob("*.parquet"):
                    path.unlink()
            else:
                self._check(settings)
            with atomic_file(self.folder / ABOUT) as partial:
                text = json.dumps({"version": VERSION, **settings}, indent=1, sort_keys=True)
                partial.write_text(text + "\n", encoding="utf-8")
            yield
        finally:
            if held is not None:
                held.close()

    def _check(self, settings: dict[str, Any]) -> None:
        try:
            said = json.loads((self.folder / ABOUT).read_text(encoding="utf-8"))
        except (OSError, ValueError):  # none, or one that a full disk cut off
            said = {}
        if not any(self.folder.glob("*.parquet")):
            return
        said = _flat(said)
        now = _flat(json.loads(json.dumps({"version": VERSION, **settings})))
        if other := [key for key in sorted(said.keys() | now) if said.get(key) != now.get(key)]:
            told = ", ".join(
                f"{key} {_short(said.get(key))}, now {_short(now.get(key))}" for key in other
            )
            raise UserError(
                f"{self.folder} holds answers of another run ({told}): give another `-o`, or throw "
                "them away with `--fresh`"
            )

    def digest(self, portion: int) -> str | None:
        """The digest of the rows that a portion's file answers; None where there is no such file.

        One that is damaged is none.
        """
        try:
            found = pq.read_schema(self._path(portion))
        except (OSError, pa.ArrowException):
            return None
        digest = (found.metadata or {}).get(DIGEST, b"").decode()
        return digest if found.names == SCHEMA.names else None

    def write(self, portion: int, digest: str, lines: list[Line]) -> None:
        """Writes the answers of a portion; the file is there whole or not at all."""
        table = pa.Table.from_pylist(lines, SCHEMA).replace_schema_metadata({DIGEST: digest})
        with atomic_file(self._path(portion)) as partial:
            pq.write_table(table, partial)

    def read(self, portion: int) -> list[Line]:
        """Reads the answers of a portion."""
        return pq.read_table(self._path(portion), schema=SCHEMA).to_pylist()

    def forget_from(self, portion: int) -> None:
        """Removes the files of portions that there are no more."""
        for path in self.folder.iterdir():
            found = NAME.fullmatch(path.name)
            if found and int(found[1]) >= portion:
                path.unlink()

    def _path(self, portion: int) -> Path:
        return self.folder / f"{portion:06d}.parquet"


def _held(folder: Path) -> Any:
    try:
        held = lock(folder / ".lock")
    except NoLocks:
        return None
    if held is None:
        raise UserError(f"another process writes to {folder}: wait for it, or give another `-o`")
    return held


def _flat(content: dict[str, Any], above: str = "") -> dict[str, Any]:
    """Settings by dotted names, so that one that differs can be named."""
    found: dict[str, Any] = {}
    for key, value in content.items():
        inner = _flat(value, f"{above}{key}.") if isinstance(value, dict) else {above + key: value}
        found |= inner
    return found


def _short(value: Any) -> str:
    text = "not set" if value is None else json.dumps(value, ensure_ascii=False)
    return text if len(text) <= SHOWN else f"{text[:SHOWN]}…"
