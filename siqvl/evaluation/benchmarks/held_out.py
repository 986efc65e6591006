"""Prepared benchmarks in a folder: which are the recipe's, and whether they are as it says now.

`prepared.json` beside them says what each was made of: a benchmark is taken for the recipe's by
that, and by its name, never because it lies there.
"""

from __future__ import annotations

import hashlib
import json
import logging
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path

import siqvl
from siqvl.data import sources
from siqvl.data.manifest import FILE_NAME, Manifest
from siqvl.data.preparation.distinct_pictures import HeldOut
from siqvl.data.preparation.prepare import preparation_key
from siqvl.data.schema import RowKind
from siqvl.data.shards import checked_shard
from siqvl.errors import UserError
from siqvl.files import atomic_file, file_sha256, folder_hash
from siqvl.locks import locked
from siqvl.recipe import Benchmark, Recipe
from siqvl.recipe.keys import SIDE_BY_SIDE

logger = logging.getLogger(__name__)

NOTES = "prepared.json"
LONGEST_WAIT = 600.0  # seconds, for another run
SAMPLED_LATER = "the pairs of benchmark `{}` are sampled after this"


def held_out(recipe: Recipe, folder: Path) -> HeldOut:
    """The recipe's benchmarks in a folder of prepared ones; others that lie there do not count.

    Raises:
        UserError: one is missing, or was prepared from another source.
    """
    folders, unchecked = {}, []
    for benchmark in recipe.evaluation.benchmarks:
        place = folder / benchmark.name
        if (place / FILE_NAME).is_file():
            check_source(Manifest.read(place), benchmark, folder)
            folders[benchmark.name] = place
        elif benchmark.sampled:
            unchecked.append(SAMPLED_LATER.format(benchmark.name))
        else:
            raise UserError(
                f"{folder} holds no prepared benchmark `{benchmark.name}` to compare pictures "
                "with; run data_prep --stage evaluation with this recipe first"
            )
    return HeldOut(folders, unchecked)


def check_source(manifest: Manifest, benchmark: Benchmark, folder: Path) -> None:
    """Judges whether prepared rows are those of a benchmark; raises UserError."""
    manifest.in_order([benchmark.source], f"benchmark `{benchmark.name}` in {folder}")


@contextmanager
def alone_with_benchmarks(out: Path) -> Iterator[None]:
    """Waits until no other run prepares benchmarks in this folder, if that is not for too long.

    Two at once do the same work, and do no harm.
    """
    out.parent.mkdir(parents=True, exist_ok=True)
    path = out.with_name(f".{out.name}.lock")
    with locked(path, 0.0) as alone:
        if alone:
            yield
            return
    logger.warning("%s: another run prepares benchmarks; waiting for it", out)
    with locked(path, LONGEST_WAIT):
        yield


def forget_others(out: Path, names: set[str]) -> None:
    """Removes prepared benchmarks that are not among `names`; nothing else is touched."""
    for file in sorted(out.glob(f"*/{FILE_NAME}")):
        if file.parent.name in names:
            continue
        try:
            Manifest.read(file.parent)
        except UserError:  # it is not known what this is
            continue
        logger.warning("%s is removed: the recipe has no such benchmark", file.parent)
        shutil.rmtree(file.parent)


def content_key(benchmark: Benchmark, recipe: Recipe, kind: RowKind) -> str:
    """A digest of all that decides what a prepared benchmark holds, the code included."""
    training = benchmark.training
    content = [
        preparation_key([benchmark.source], kind, recipe.data, recipe.seed),
        recipe.data.model_dump(mode="json", exclude=SIDE_BY_SIDE),
        benchmark.model_dump(mode="json"),
        sources.state(training) if training is not None else None,
        _code(),
    ]
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


@cache
def _code() -> str:
    return folder_hash(Path(siqvl.__file__).parent, lambda path: path.suffix == ".py")


def note_ready(benchmark: Benchmark, out: Path, key: str) -> None:
    """Notes that a benchmark was just prepared at `out`, and of what."""
    notes = _notes(out) | {benchmark.name: _note(benchmark, out, key)}
    with atomic_file(out / NOTES) as partial:
        partial.write_text(json.dumps(notes, indent=2, sort_keys=True) + "\n", encoding="utf-8")


def is_noted(benchmark: Benchmark, out: Path, key: str) -> bool:
    """Tells whether a benchmark lies at `out` whole and unchanged, prepared of this."""
    place = out / benchmark.name
    try:
        if _notes(out).get(benchmark.name) != _note(benchmark, out, key):
            return False
        manifest = Manifest.read(place)
        for shard in manifest.shards:
            checked_shard(place / "shards" / shard.name, shard, verify=False)
        checked_shard(place / manifest.pictures.name, manifest.pictures, verify=True)
    except (UserError, OSError):
        return False
    return True


def _note(benchmark: Benchmark, out: Path, key: str) -> dict[str, str]:
    return {"key": key, "manifest": file_sha256(out / benchmark.name / FILE_NAME)}


def _notes(out: Path) -> dict[str, dict[str, str]]:
    try:
        found = json.loads((out / NOTES).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}
