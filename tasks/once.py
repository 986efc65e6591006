"""Steps of a pipeline on this machine are done once, however often its process is killed.

Each leaves a mark in the pipeline's folder, `steps/<run name>.json`: what it reads and its MLflow
run when it begins, and the content of what it made when all of it is done. The same command again
passes over what is done and still is as it was. What a step had made when it was killed before it
was done is logged to the run that made it, and not made again.

On a cluster Flyte's cache does the same, and nothing is marked; nor is it for tasks that run alone.
"""

from __future__ import annotations

import logging
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path

from siqvl.checkpoint import CARD, verify_checkpoint
from siqvl.data.content import content_of
from siqvl.errors import UserError
from siqvl.files import digests_hash, file_digests, known_sha256
from siqvl.recipe import Recipe, Source
from siqvl.stored import Stored, stored_if_sound, write_stored
from siqvl.tracking.runs import RunLog
from siqvl.training.resuming import is_first_process
from tasks.cache_keys import states
from tasks.contracts import ALONE, PipelineRun, on_cluster, workspace
from tasks.tracked import tracked

logger = logging.getLogger(__name__)

FOLDER = "steps"


class Mark(Stored):
    """What is known of a step."""

    reads: list[str]  # contents of what it is made from
    mlflow_run: str
    made: str | None = None  # the content of what it left, once all is done


def once(
    name: str,
    recipe: Recipe,
    run: PipelineRun,
    out: Path,
    *,
    tags: dict[str, str],
    reads: Sequence[Path | list[Source] | None],
    make: Callable[[RunLog | None], object],
    keep: Callable[[RunLog], object],
    atomic: bool = True,
) -> None:
    """Do a step inside its MLflow run, unless it is done.

    Args:
        name: of its MLflow run.
        out: the folder that it makes.
        tags: of its MLflow run.
        reads: artifacts and sources that decide what is made, beside the recipe.
        make: writes `out`. Of several processes that torch elastic started, the first has a log.
        keep: tells the run what was made; that may happen more than once.
        atomic: whether `out` appears whole or not at all.
    """
    if run.name == ALONE.name or on_cluster():
        place, contents, mark = None, [], None
    else:
        place = workspace(recipe, run) / FOLDER / f"{name}.json"
        contents = [_content(one) for one in reads]
        mark = _usable(place, out, contents)
    if mark is not None and mark.made is not None:
        return
    again = mark.mlflow_run if mark is not None and atomic and out.exists() else None
    if not is_first_process():
        if again is None:
            make(None)
        return
    with tracked(recipe, name, run, tags, again) as log:
        begun = Mark(reads=contents, mlflow_run=log.run_id)
        if again is None:
            if place is not None:
                if mark is None:  # what lies there is of other data, or damaged
                    shutil.rmtree(out, ignore_errors=True)
                write_stored(place, begun)
            make(log)
        keep(log)
        if place is not None:
            _clear(out)
            write_stored(place, begun.model_copy(update={"made": _bytes_of(out)}))


def marks(folder: Path) -> dict[str, Mark]:
    """The marks in a pipeline's folder by the names of runs, in the order in which they came."""
    found = sorted(folder.glob(f"{FOLDER}/*.json"), key=lambda path: path.stat().st_mtime_ns)
    return {path.stem: mark for path in found if (mark := stored_if_sound(path, Mark)) is not None}


def _usable(place: Path, out: Path, reads: list[str]) -> Mark | None:
    """The mark of a step, if it was made from the same, and is as it was then."""
    if (mark := stored_if_sound(place, Mark)) is None:
        return None
    try:
        if mark.reads != reads:
            raise UserError(f"step `{place.stem}` was done with other data than there is now")
        if mark.made is not None and _bytes_of(out) != mark.made:
            raise UserError(f"{out} is not what step `{place.stem}` left there")
        if (out / CARD).exists():
            verify_checkpoint(out)
    except (UserError, OSError) as error:
        logger.warning("%s; the step is done again", error)
        return None
    return mark


def _content(read: Path | list[Source] | None) -> str:
    """What is read, by its content; what is nothing of ours is for the step to judge."""
    if read is None:
        return ""
    try:
        if isinstance(read, list):
            return states(read)
        return verify_checkpoint(read).hash if (read / CARD).exists() else content_of(read)
    except UserError:
        return ""


def _clear(out: Path) -> None:
    """Remove what killed attempts left in a folder and beside it: states, pieces, parts."""
    beside = [*out.parent.glob(f".{out.name}.*"), *out.parent.glob(f"{out.name}.tmp-*")]
    for left in [*beside, *out.glob(".*"), *out.glob("*.tmp-*")]:
        if left.is_dir():
            shutil.rmtree(left, ignore_errors=True)


def _bytes_of(out: Path) -> str:
    """A hash over the files of a folder, each of which is read once in a process."""

    def counts(path: Path) -> bool:  # others are locks, or pieces of work
        return not any(part.startswith(".") for part in path.relative_to(out).parts)

    return digests_hash(file_digests(out, counts, known_sha256))
