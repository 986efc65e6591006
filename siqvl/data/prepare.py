"""Prepare data: check every row, and write shards, a manifest, a quarantine list and a report.

A prepared folder appears whole or not at all: it is written beside its place, synced to disk, and
renamed at the end. A prepared folder that is already there is replaced in the same way (two
renames: a crash in between leaves the old one as `.<name>.old-*`); a folder that holds anything
else is refused.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from functools import partial
from itertools import islice
from pathlib import Path

from siqvl.atomic_folder import atomic_folder
from siqvl.data import sources as source_registry
from siqvl.data.checks import Checked, check_rows
from siqvl.data.manifest import FILE_NAME, Manifest
from siqvl.data.report import EXAMPLES, render_report
from siqvl.data.schema import Row, RowKind
from siqvl.data.shards import ShardWriter, load_prepared
from siqvl.data.tally import Examples, Tally
from siqvl.errors import UserError
from siqvl.recipe import DataPrep, Source

__all__ = ["load_prepared", "prepare"]

CHUNK = 64  # rows handed to a process at a time
QUARANTINE = "quarantine.jsonl"
REPORT = "report.html"


def prepare(
    sources: list[Source], kind: RowKind, out: Path, *, data: DataPrep, seed: int
) -> Manifest:
    """Check the rows of all sources and write them to the folder `out`.

    The result depends on nothing but the content of the sources, the kind and the seed: not on
    `data.processes`, and its fingerprint not on `data.rows_per_shard` either.

    Raises:
        UserError: a source is not as described, nothing is left, `out` holds something else, or
            more than `data.max_quarantined` of the rows are bad. `out` is untouched then.
    """
    kind, out = RowKind(kind), Path(out)
    if not sources:
        raise UserError("no source is given; name at least one under `sources`")
    for source in sources:
        source_registry.check(source, kind)
    _refuse_foreign(out)
    with atomic_folder(out) as folder:
        tally, examples = Tally(kind), Examples(EXAMPLES)
        raw = (row for source in sources for row in source_registry.rows(source, kind, seed))
        with (
            ShardWriter(folder / "shards", kind, data.rows_per_shard) as writer,
            open(folder / QUARANTINE, "w", encoding="utf-8") as quarantine,
        ):
            for checked in _progress(_checked(raw, kind, data), sources):
                if refusal := tally.add(checked):
                    quarantine.write(json.dumps(refusal, ensure_ascii=False) + "\n")
                elif checked.row:
                    writer.write(checked.row)
                    examples.offer(checked.row)
        _refuse_bad(tally, data.max_quarantined, out)
        manifest = tally.manifest(sources, seed, writer.shards)
        _write(folder / REPORT, render_report(manifest, examples.rows))
        _write(folder / FILE_NAME, manifest.model_dump_json(indent=2) + "\n")
    return manifest


def _checked(raw: Iterator[Row], kind: RowKind, data: DataPrep) -> Iterator[Checked]:
    """Checked rows in their order, whatever the number of processes."""
    work = partial(check_rows, kind=kind, data=data)
    chunks = iter(lambda: list(islice(raw, CHUNK)), [])
    if data.processes == 1:
        for chunk in chunks:
            yield from work(chunk)
        return
    from concurrent.futures import Future, ProcessPoolExecutor
    from concurrent.futures.process import BrokenProcessPool
    from multiprocessing import get_context

    # spawn: a forked child can inherit a lock held by a thread of torch or grpc, and hang
    with ProcessPoolExecutor(data.processes, mp_context=get_context("spawn")) as pool:
        waiting: list[Future[list[Checked]]] = []
        try:
            for chunk in chunks:
                waiting.append(pool.submit(work, chunk))
                if len(waiting) > 4 * data.processes:  # never more than a few chunks in memory
                    yield from waiting.pop(0).result()
            while waiting:
                yield from waiting.pop(0).result()
        except BrokenProcessPool:
            raise UserError(
                "a worker process died, most likely for lack of memory; lower `data.processes`"
            ) from None
        finally:
            for future in waiting:
                future.cancel()


def _progress(checked: Iterable[Checked], sources: list[Source]) -> Iterable[Checked]:
    from tqdm import tqdm

    limits = [source.max_samples for source in sources]
    total = sum(limit for limit in limits if limit) if all(limits) else None
    return tqdm(checked, desc="prepare", unit=" rows", total=total, mininterval=1.0)


def _refuse_bad(tally: Tally, allowed: float, out: Path) -> None:
    bad = sum(tally.quarantined.values())
    if not tally.seen:
        raise UserError("the sources gave no rows at all; check `path`, `subsets` and `split`")
    if bad == tally.seen or bad / tally.seen > allowed:
        reason, count = tally.quarantined.most_common(1)[0]
        example = tally.examples[reason]
        detail = f": {example['detail']}" if example["detail"] else ""
        raise UserError(
            f"{bad} of {tally.seen} rows are bad ({bad / tally.seen:.1%}, allowed are "
            f"{allowed:.1%}), most often `{reason}` ({count} times, for example "
            f"{example['id']}{detail}); repair the source or raise `data.max_quarantined`"
        )


def _refuse_foreign(out: Path) -> None:
    if out.is_dir() and any(out.iterdir()) and not (out / FILE_NAME).is_file():
        raise UserError(f"{out} exists and is no prepared data; choose another folder or remove it")
    if out.exists() and not out.is_dir():
        raise UserError(f"{out} is a file; choose another place for the prepared data")


def _write(path: Path, text: str) -> None:
    path.write_text(text, encoding="utf-8")
