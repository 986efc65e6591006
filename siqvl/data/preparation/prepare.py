"""Prepare data: check every row, and write shards, a manifest, a quarantine list and a report.

Rows are checked in pieces (`siqvl.data.preparation.pieces`), which are kept beside the prepared
folder until it is there: a killed run goes on where it was. It appears whole or not at all: it is
written beside its place, synced to disk, and renamed at the end. A prepared folder that is already
there is replaced in the same way; a folder that holds anything else is refused.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Generator, Iterator
from contextlib import closing
from pathlib import Path

from tqdm import tqdm

from siqvl.data import sources as source_registry
from siqvl.data.manifest import Manifest
from siqvl.data.preparation.checks import VERSION as CHECKS_VERSION
from siqvl.data.preparation.distinct_pictures import HeldOut
from siqvl.data.preparation.merge import merge, merge_pieces, refuse_foreign
from siqvl.data.preparation.piece_plan import Plan
from siqvl.data.preparation.pieces import (
    BLOCK,
    DESCRIPTION,
    FORMAT,
    NAME,
    Summary,
    find_pieces,
    is_whole,
    read_summary,
    write_json,
)
from siqvl.data.preparation.workers import Checker, Workers
from siqvl.data.schema import SCHEMA_VERSION, RowKind
from siqvl.data.shards import load_prepared
from siqvl.errors import UserError
from siqvl.locks import shared
from siqvl.recipe import DataPrep, Source

__all__ = ["load_prepared", "merge_pieces", "prepare", "prepare_pieces"]

#: Keys of DataPrep that decide what is found out about a row.
CHECKING = ("max_image_pixels", "max_images", "max_characters")


def prepare(
    sources: list[Source],
    kind: RowKind,
    out: Path,
    *,
    data: DataPrep,
    seed: int,
    benchmarks: HeldOut | None = None,
) -> Manifest:
    """Check the rows of all sources and write them to the folder `out`.

    The result depends on nothing but the content of the sources, the kind, the seed, the benchmarks
    and `data`: not on `data.processes` and `data.shards`, nor on how often a run was killed, and
    its fingerprint not on `data.rows_per_shard` either.

    Args:
        benchmarks: with whose pictures training rows are compared; None says that nobody named any.

    Raises:
        UserError: a source is not as described, nothing is left, `out` holds something else, or
            more than `data.max_quarantined` of the rows are bad. `out` is untouched then; checked
            pieces stay in `.<name>.preparing-*`, so that the next run need not do them again.
    """
    kind, out = RowKind(kind), Path(out)
    _check(sources, kind, out)
    refuse_foreign(out)
    pins = [source_registry.pinned(source) for source in sources]
    key = preparation_key(pins, kind, data, seed, ask=False)
    work = out.with_name(f".{out.name}.preparing-{key[:16]}")
    out.parent.mkdir(parents=True, exist_ok=True)
    with shared(out.with_name(f".{out.name}.lock")) as is_last:
        # rows are merged while others are still checked
        checker = Checker(work, pins, kind, seed, data)
        with closing(_made(checker, key)) as pieces:
            manifest = merge(
                pieces,
                sources,
                kind,
                out,
                data=data,
                seed=seed,
                choices_are=checker.choices_are,
                benchmarks=benchmarks,
            )
        # of this run, and of others that were killed or gave up, but not of one that is at work
        for left in out.parent.iterdir() if is_last() else ():
            if left.name.startswith((f".{out.name}.preparing-", f"{out.name}.tmp-")):
                shutil.rmtree(left, ignore_errors=True)
    return manifest


def prepare_pieces(
    sources: list[Source],
    kind: RowKind,
    out_folder: Path,
    *,
    data: DataPrep,
    seed: int,
    shard: int = 0,
    shards: int = 1,
) -> None:
    """Check every `shards`-th piece of all sources, from number `shard` on; write them to a folder.

    Pieces that are there already, of the same rows, are kept.

    Raises:
        UserError: a source is not as described or changes meanwhile, or so many rows are bad that
            no others can make up for them.
    """
    kind, folder = RowKind(kind), Path(out_folder)
    _check(sources, kind, folder)
    pins = [source_registry.pinned(source) for source in sources]
    key = preparation_key(pins, kind, data, seed, ask=False)
    for _ in _made(Checker(folder, pins, kind, seed, data), key, shard, shards):
        pass


def _made(
    checker: Checker, key: str, shard: int = 0, shards: int = 1
) -> Generator[tuple[int, Path]]:
    """Pieces of a shard in their order, each with the number of its source; the missing are made.

    Raises:
        UserError: as `prepare_pieces`, of sources that were checked, and whose `key` is known.
    """
    sources, kind, seed, data = checker.sources, checker.kind, checker.seed, checker.data
    checker.folder.mkdir(parents=True, exist_ok=True)
    with Workers(checker) as workers, tqdm(desc="prepare", unit=" rows", mininterval=1) as bar:
        # workers start while rows are counted
        present = _present(checker.folder, key, _options(kind, data, seed))
        plan = Plan(checker, shard, shards, present)
        summary = Summary()
        for path in present.values():
            summary.add(read_summary(path))
        bar.reset(plan.mine_rows)
        bar.update(summary.rows)
        _refuse_early(summary, data.max_quarantined, plan.rows)

        def counted() -> Iterator[Summary]:
            for found in plan.carried_out(workers):
                summary.add(found)
                bar.update(found.rows)
                _refuse_early(summary, data.max_quarantined, plan.rows)
                yield found

        yield from plan.in_order(counted())
    if preparation_key(sources, kind, data, seed, ask=False) != key:
        raise UserError("a source changed while it was being prepared; prepare the data again")


def _check(sources: list[Source], kind: RowKind, out: Path) -> None:
    if not sources:
        raise UserError("no source is given; name at least one under `sources`")
    for source in sources:
        source_registry.check(source, kind)
        path = source_registry.resolve(source).path
        if path and out.resolve().is_relative_to(Path(path).resolve()):
            raise UserError(
                f"source `{source.kind}`: prepared data would go into its own folder {path} "
                f"(to {out}), and be read as part of it next time; keep the two apart"
            )


def _options(kind: RowKind, data: DataPrep, seed: int) -> str:
    """Digest of what decides, beside the sources, what is found out about a row."""
    from PIL import __version__ as pillow

    limits = {name: getattr(data, name) for name in CHECKING}
    versions = [SCHEMA_VERSION, CHECKS_VERSION, FORMAT, BLOCK, pillow]
    content = json.dumps([kind.value, seed, *versions, limits])
    return hashlib.sha256(content.encode()).hexdigest()


def preparation_key(
    sources: list[Source], kind: RowKind, data: DataPrep, seed: int, *, ask: bool = True
) -> str:
    """Digest of all that decides what the pieces of some sources hold, but for the code.

    Args:
        ask: the hub for commits; without it a hub that answers only later changes nothing.
    """
    states = [source_registry.state(source, ask=ask) for source in sources]
    parts = [_options(kind, data, seed), *states]
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()


def _present(folder: Path, key: str, options: str) -> dict[tuple[int, int], Path]:
    """Whole pieces of the same rows; all other ones are removed."""
    description = folder / DESCRIPTION
    wanted = {"key": key, "options": options}
    same = description.is_file() and json.loads(description.read_text("utf-8")) == wanted
    for path in list(folder.iterdir()):
        piece = NAME.fullmatch(path.name) is not None
        ours = piece or path.name.startswith((".piece-", "source-"))
        # one that is being written may be another run's, which does the same
        if ours and not (same and (is_whole(path) if piece else True)):
            path.unlink(missing_ok=True)
    write_json(description, wanted)
    return find_pieces(folder)


def _refuse_early(summary: Summary, allowed: float, total: int | None) -> None:
    """Stop as soon as no good row can make up for the bad ones."""
    if total and summary.bad > allowed * total:
        raise UserError(
            f"{summary.bad} of the {summary.rows} rows checked so far are bad, more than "
            f"{allowed:.1%} of all {total} rows, most often {summary.commonest()}; repair the "
            "source or raise `data.max_quarantined`"
        )
