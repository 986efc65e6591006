"""Merge checked pieces into prepared data: what only all rows together can tell is decided here."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterable, Iterator, Sequence
from functools import partial
from itertools import compress
from pathlib import Path

import pyarrow as pa

from siqvl.data.manifest import FILE_NAME, Manifest
from siqvl.data.preparation.checks import Checked
from siqvl.data.preparation.data_page import EXAMPLES, example, render_report
from siqvl.data.preparation.distinct_pictures import NOT_GIVEN, HeldOut, Leaks, PictureWriter
from siqvl.data.preparation.pieces import (
    BLOCK,
    DESCRIPTION,
    end_file,
    find_pieces,
    is_whole,
    read_end,
    read_piece,
)
from siqvl.data.preparation.tally import SourceExamples, Tally
from siqvl.data.schema import Row, RowKind
from siqvl.data.shards import ShardWriter
from siqvl.errors import UserError
from siqvl.files import atomic_folder
from siqvl.recipe import ChoicesAre, DataPrep, Source

logger = logging.getLogger(__name__)

QUARANTINE = "quarantine.jsonl"
REPORT = "report.html"


def merge_pieces(
    folders: list[Path],
    sources: list[Source],
    kind: RowKind,
    out: Path,
    *,
    data: DataPrep,
    seed: int,
    benchmarks: HeldOut | None = None,
) -> Manifest:
    """Write the rows of pieces, in the order of the sources, to the folder `out`.

    Args:
        folders: what `prepare_pieces` wrote for each shard.
        benchmarks: with whose pictures training rows are compared; None says that nobody named any.

    Raises:
        UserError: a piece is missing or damaged, nothing is left, `out` holds something else, or
            more than `data.max_quarantined` of the rows are bad. `out` is untouched then.
    """
    refuse_foreign(Path(out))
    parts = [Path(folder) for folder in folders]
    pieces = _whole(_collected(parts, len(sources)))
    return merge(
        pieces,
        sources,
        kind,
        out,
        data=data,
        seed=seed,
        choices_are=[read_end(parts[0], number)["choices_are"] for number in range(len(sources))],
        benchmarks=benchmarks,
    )


def merge(
    pieces: Iterable[tuple[int, Path]],
    sources: list[Source],
    kind: RowKind,
    out: Path,
    *,
    data: DataPrep,
    seed: int,
    choices_are: Sequence[ChoicesAre | None],
    benchmarks: HeldOut | None = None,
) -> Manifest:
    """`merge_pieces` of whole pieces in their order, each with its source; more may come.

    Args:
        choices_are: how the answers of each source's rows with choices were read.
    """
    kind, out = RowKind(kind), Path(out)
    # a score is over the published questions, all of them; questions that are trained on come with
    # the benchmarks that they are compared with
    scored = kind is RowKind.EVALUATION and benchmarks in (None, HeldOut())
    compared = HeldOut() if scored else benchmarks or NOT_GIVEN
    leaks = Leaks(compared, data.leaks, data.near)
    with atomic_folder(out) as folder:
        examples = SourceExamples(EXAMPLES, len(sources))
        with (
            ShardWriter(folder / "shards", kind, data.rows_per_shard) as writer,
            PictureWriter(folder) as pictures,
            open(folder / QUARANTINE, "w", encoding="utf-8") as quarantine,
        ):
            tally = Tally(kind, sources, data, leaks, pictures, keeps_all=scored)
            for number, found, stored in _rows(pieces, kind):
                table = tally.named(found, stored, number)
                keep = [False] * len(found)
                for index, checked in enumerate(found):
                    if line := tally.add(checked, number):
                        quarantine.write(json.dumps(line, ensure_ascii=False) + "\n")
                        continue
                    keep[index] = True
                    examples.offer(number, partial(_example, table, index))
                sizes = [checked.stored_bytes for checked in compress(found, keep)]
                writer.write(table if all(keep) else table.filter(keep), sizes)
        _refuse_bad(tally, data.max_quarantined)
        manifest = tally.manifest(seed, writer.shards, choices_are)
        page = render_report(manifest, examples.rows, tally.refused)
        (folder / REPORT).write_text(page, encoding="utf-8")
        (folder / FILE_NAME).write_text(manifest.model_dump_json(indent=2) + "\n", encoding="utf-8")
    for remark in manifest.remarks():
        logger.warning("%s: %s", out.name, remark)
    return manifest


def _example(table: pa.Table, index: int) -> Row:
    return example(table.slice(index, 1).to_pylist()[0])


def refuse_foreign(out: Path) -> None:
    """Raise UserError if something else than prepared data is in the place of `out`."""
    if out.is_dir() and any(out.iterdir()) and not (out / FILE_NAME).is_file():
        raise UserError(f"{out} exists and is no prepared data; choose another folder or remove it")
    if out.exists() and not out.is_dir():
        raise UserError(f"{out} is a file; choose another place for the prepared data")


def _rows(
    pieces: Iterable[tuple[int, Path]], kind: RowKind
) -> Iterator[tuple[int, list[Checked], pa.Table]]:
    """Row groups in order, with the number of their source."""
    for number, path in pieces:
        for found, table in read_piece(path, kind):
            yield number, found, table


def _whole(pieces: Iterable[tuple[int, Path]]) -> Iterator[tuple[int, Path]]:
    """The pieces, each looked at before it is given: they may have come from another machine."""
    for number, path in pieces:
        if not is_whole(path):
            raise UserError(f"{path} was damaged after it was written; run its shard again")
        yield number, path


def _collected(folders: list[Path], sources: int) -> list[tuple[int, Path]]:
    """Every piece of every source once, in order, as (number of the source, file).

    Raises:
        UserError: one is missing, or the folders are not of the same preparation.
    """
    found: dict[tuple[int, int], Path] = {}
    sizes: list[dict[int, Path]] = [{} for _ in range(sources)]
    options: dict[str, Path] = {}
    for folder in folders:
        for number in range(sources):
            end = end_file(folder, number)
            if not end.is_file():
                raise UserError(f"{folder} holds no complete shard; run prepare_pieces for it")
            sizes[number][read_end(folder, number)["rows"]] = folder
        description = json.loads((folder / DESCRIPTION).read_text(encoding="utf-8"))
        options[description["options"]] = folder
        found = find_pieces(folder) | found
    names = ", ".join(str(folder) for folder in folders)
    if len(options) > 1 or any(len(size) > 1 for size in sizes):
        raise UserError(f"the shards {names} were prepared differently; run all of them again")
    wanted = [
        (number, block)
        for number, size in enumerate(sizes)
        for block in range(-(-next(iter(size), 0) // BLOCK))
    ]
    for number, block in wanted:
        if (number, block) not in found:
            raise UserError(
                f"piece {block} of source {number} is in none of {names}; run prepare_pieces for "
                "every shard"
            )
    return [(number, found[number, block]) for number, block in wanted]


def _refuse_bad(tally: Tally, allowed: float) -> None:
    summary = tally.summary
    if not summary.rows:
        raise UserError(
            "the sources gave no rows at all; check `path`, `subsets`, `split` and `where`"
        )
    if summary.bad == summary.rows or summary.bad / summary.rows > allowed:
        raise UserError(
            f"{summary.bad} of {summary.rows} rows are bad ({summary.bad / summary.rows:.1%}, "
            f"allowed are {allowed:.1%}), most often {summary.commonest()}; repair the source or "
            "raise `data.max_quarantined`"
        )
    if not sum(tally.rows_of_sources):
        reason, count = tally.left_out.most_common(1)[0]
        raise UserError(
            f"none of {summary.rows} rows is left: {count} are left out as `{reason}`; lower what "
            "the recipe asks of them"
        )
