"""Portions of answers -> one table: Parquet, JSON lines or CSV, a portion at a time."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable, Iterable
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from siqvl.answers.portion_files import SCHEMA, Line
from siqvl.errors import UserError, one_line
from siqvl.files import atomic_file, check_not_read

Portions = Iterable[list[Line]]


def check_ending(out: Path) -> None:
    """Refuses a table of a kind that is not written.

    Raises:
        UserError: its name ends otherwise.
    """
    if out.suffix.lower() not in WRITERS:
        raise UserError(f"{out} should end in {', '.join(WRITERS)}: as such a table it is written")


def check_place(what: str, out: Path, page: Path | None = None) -> None:
    """Refuses to write over what is read, or into its folder, which the next run would read.

    Args:
        what: the data set; a hub id, which is no path, is passed.
        page: which is written beside the table.

    Raises:
        UserError: a file is to be where it must not.
    """
    read = Path(what).resolve()
    for made, option in ((out, "-o"), (page, "--page")):
        if made is not None:
            check_not_read(made, read, option)
    if page is not None and page.resolve() == out.resolve():
        raise UserError(f"{page} is the table already: give another `--page`")
    if read.is_dir() and out.resolve().is_relative_to(read):
        raise UserError(
            f"{out} lies in {what}, and would be read with it the next time: give an `-o` elsewhere"
        )


def write_answers(out: Path, portions: Portions) -> None:
    """Writes a table, whole or not at all.

    Raises:
        UserError: it cannot be written.
    """
    check_ending(out)
    try:
        with atomic_file(out) as partial:
            WRITERS[out.suffix.lower()](partial, portions)
    except OSError as error:
        raise UserError(f"{out} cannot be written ({one_line(error)})") from None


def _parquet(path: Path, portions: Portions) -> None:
    with pq.ParquetWriter(path, SCHEMA) as writer:
        for lines in portions:
            writer.write_table(pa.Table.from_pylist(lines, SCHEMA))


def _json_lines(path: Path, portions: Portions) -> None:
    with path.open("w", encoding="utf-8", newline="\n") as file:
        for lines in portions:
            file.writelines(json.dumps(line, ensure_ascii=False) + "\n" for line in lines)


def _csv(path: Path, portions: Portions) -> None:
    """A list, which CSV has not, stands as JSON."""
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, SCHEMA.names)
        writer.writeheader()
        for lines in portions:
            for line in lines:
                expected = line["expected"]
                known = None if expected is None else json.dumps(expected, ensure_ascii=False)
                writer.writerow(line | {"expected": known})


WRITERS: dict[str, Callable[[Path, Portions], None]] = {
    ".parquet": _parquet,
    ".jsonl": _json_lines,
    ".csv": _csv,
}
