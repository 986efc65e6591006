"""The folder in which a pipeline on this machine goes on after it was killed, or failed.

A folder says in `pipeline.json` what it is of, and is held by the process that works in it. A
cluster has its own ways: Flyte's cache, and `--recover`.
"""

from __future__ import annotations

import hashlib
import json
import time
import uuid
from importlib.metadata import version
from pathlib import Path
from typing import BinaryIO

from siqvl.errors import UserError, one_line
from siqvl.evaluation.control import control_recipe
from siqvl.locks import try_lock
from siqvl.recipe import ChangedCode, Recipe
from siqvl.recipe.keys import benchmarks_key, data_key, evaluation_key, pairs_key, training_key
from siqvl.stored import Stored, stored_if_sound, write_stored
from siqvl.tracking.runs import tracking_uri
from siqvl.training.resuming import LIBRARIES
from tasks.cache_keys import DECODING
from tasks.contracts import PipelineRun, workspace
from tasks.once import marks
from tasks.resources import code

RECORD, LOCK = "pipeline.json", ".lock"
_held: dict[Path, BinaryIO] = {}  # folders, by this process


class Pipeline(Stored):
    """What a folder is of."""

    recipe: str  # all that it says of results and of where they are logged
    code: dict[str, str]  # version of siqvl and of the libraries that compute
    finished: bool = False

    @classmethod
    def here(cls, recipe: Recipe) -> Pipeline:
        """What this process would make of a recipe."""
        keys = [benchmarks_key(recipe), pairs_key(recipe), evaluation_key(recipe)]
        keys += [key(recipe, stage) for key in (data_key, training_key) for stage in recipe.trained]
        keys += [
            training_key(control_recipe(recipe, control), control.stage)
            for control in recipe.evaluation.controls
        ]
        logged = [tracking_uri(recipe), recipe.tracking.experiment]
        versions = {name: version(name) for name in (*LIBRARIES, *DECODING)}
        digest = hashlib.sha256(json.dumps([*keys, *logged]).encode()).hexdigest()
        return cls(recipe=digest, code={"siqvl": code(), **versions})

    def differing(self, other: Pipeline) -> str:
        """What differs in another one's code, in words; empty where nothing does."""
        names = [name for name, one in self.code.items() if other.code.get(name) != one]
        return ", ".join(
            "siqvl's own"
            if name == "siqvl"
            else f"{name} {self.code[name]}, here {other.code[name]}"
            for name in names
        )


def pipeline_folder(recipe: Recipe, *, fresh: bool) -> Path:
    """Return the newest unfinished folder of an equal recipe in which nobody works, or a new one.

    Older than one that finished none is gone on with: the command has done what it was to do.

    Raises:
        UserError: other code has finished steps there, and `changed_code` does not say what to do.
    """
    place, here = workspace(recipe, PipelineRun(name="")), Pipeline.here(recipe)
    for record in [] if fresh else sorted(place.glob(f"*/{RECORD}"), reverse=True):
        known = stored_if_sound(record, Pipeline)
        if known is None:
            print(f"passing over {record.parent}, whose {RECORD} is damaged or of another version")
        if known is None or known.recipe != here.recipe:
            continue
        if known.finished:
            break
        if _is_held(record.parent):
            if _goes_on(record.parent, known.differing(here), recipe.changed_code):
                return record.parent
        else:
            why = "another process works there, or its file system has no locks"
            print(f"beginning anew beside {record.parent}: {why}")
        break
    folder = workspace(recipe, PipelineRun(name=new_name()))
    folder.mkdir(parents=True)
    _is_held(folder)
    write_stored(folder / RECORD, here)
    return folder


def new_name() -> str:
    """Return a name by the time; two pipelines may start in the same second."""
    return f"{time.strftime('%Y%m%d-%H%M%S')}-{uuid.uuid4().hex[:4]}"


def finish(folder: Path) -> None:
    """Note that nothing of a pipeline is left to do."""
    if (known := stored_if_sound(folder / RECORD, Pipeline)) is not None:
        write_stored(folder / RECORD, known.model_copy(update={"finished": True}))


def _goes_on(folder: Path, differing: str, changed_code: ChangedCode) -> bool:
    """Say what is done about an unfinished folder."""
    done = [name for name, mark in marks(folder).items() if mark.made is not None]
    by = f"by other code ({differing})"
    if differing and done and changed_code != "go_on":
        if changed_code == "refuse":
            raise UserError(
                f"{len(done)} steps of the unfinished pipeline in {folder} were done {by}: set "
                "`changed_code: go_on` in the recipe to keep them, or begin anew with --fresh (or "
                "`changed_code: begin_anew`)"
            )
        print(f"beginning anew: {len(done)} steps of the pipeline in {folder} were done {by}")
        return False
    what = f"done{f' {by}' * bool(differing)}: {', '.join(done)}" if done else "no step is done"
    print(f"going on in {folder} ({what}); --fresh begins anew")
    return True


def _is_held(folder: Path) -> bool:
    """Hold a folder until this process ends; not if another does, nor where there are no locks."""
    try:
        if folder not in _held and (file := try_lock(folder / LOCK)) is not None:
            _held[folder] = file
    except OSError as error:
        raise UserError(
            f"the unfinished pipeline in {folder} cannot be gone on with ({one_line(error)}): make "
            "the folder writable, or begin anew with --fresh"
        ) from error
    return folder in _held
