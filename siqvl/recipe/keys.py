"""The cache keys of a recipe: a hash of what each result of the pipeline depends on.

A key leaves out what a task gets beside the recipe: prepared rows, benchmarks, a parent checkpoint.
Those count by their own content.

Two recipes with an equal key lead to the same result, so a cache may hand out the one it has. Where
a run keeps its files, what a cluster is asked for, how gates judge, how often states are saved and
how registered models answer are in none of these.
"""

from __future__ import annotations

import hashlib
import json
from functools import lru_cache
from pathlib import Path
from typing import Any

from siqvl.files import folder_hash
from siqvl.recipe import Recipe, Stage
from siqvl.recipe.reading.shipped import shipped

#: Keys of a stage that say how it is run, and do not change the checkpoint.
RUNNING = {"saving_steps", "kept_states", "loader_workers", "prefetch"}
#: Keys of `data` that do not change the rows, which come out equal for any number of either.
SIDE_BY_SIDE = {"processes", "shards"}
#: Keys of `model` that name weights, each a hub id or a folder.
PARTS = ("vision", "language")


def benchmarks_key(recipe: Recipe) -> str:
    """Return the key of the prepared benchmarks."""
    return _hash({"seed": recipe.seed, "data": _data(recipe), "benchmarks": _benchmarks(recipe)})


def data_key(recipe: Recipe, stage: Stage) -> str:
    """Return the key of a stage's prepared rows."""
    sources = [source.model_dump(mode="json") for source in recipe.stage(stage).sources]
    return _hash({"seed": recipe.seed, "data": _data(recipe), "sources": sources})


def training_key(recipe: Recipe, stage: Stage) -> str:
    """Return the key of a stage's checkpoint."""
    figures = recipe.stage(stage).model_dump(mode="json", exclude=RUNNING | {"sampled"})
    return _hash(
        {
            "seed": recipe.seed,
            "model": _model(recipe),
            "figures": figures,
            "features_batch_size": recipe.features_batch_size,
            "distributed": recipe.distributed.model_dump(mode="json"),
        }
    )


def state_key(recipe: Recipe, stage: Stage, *, parent: str | None, data: str) -> str:
    """Return the key of a stage's resumable states.

    Args:
        parent: hash of the checkpoint that the stage continues from.
        data: fingerprint of its rows.
    """
    return _hash({"training": training_key(recipe, stage), "parent": parent, "data": data})


def state_key_of_0_1(recipe: Recipe, *, parent: str | None, data: str) -> str:
    """Return the key by which version 0.1 named states: any other key of a recipe lost them."""
    unchanged = recipe.model_copy(update={"changed_code": "refuse"})
    key = "-".join([unchanged.hash(), parent or "none", data])
    return hashlib.sha256(key.encode()).hexdigest()


def pairs_key(recipe: Recipe) -> str:
    """Return the key of the preference pairs that a checkpoint writes."""
    sampled = recipe.stages.dpo.sampled
    return _hash(
        {
            "seed": recipe.seed,
            "data": _data(recipe),
            "model": _model(recipe),
            "sampled": sampled.model_dump(mode="json") if sampled else None,
            "sources": len(recipe.stages.dpo.sources),
            "benchmarks": _benchmarks(recipe),
            **_precision(recipe),
        }
    )


def evaluation_key(recipe: Recipe) -> str:
    """Return the key of a checkpoint's scores."""
    return _hash(
        {
            "seed": recipe.seed,
            "model": _model(recipe),
            "features_batch_size": recipe.features_batch_size,
            "benchmarks": _benchmarks(recipe),
            "batch_size": recipe.evaluation.batch_size,
            "pictures": recipe.evaluation.report_pictures,
            **_precision(recipe),
        }
    )


def _precision(recipe: Recipe) -> dict[str, Any]:
    """Of answers; left out where a recipe of before the key would have the same."""
    precision = recipe.evaluation.precision
    return {} if precision == "auto" else {"precision": precision}


def _model(recipe: Recipe) -> dict[str, Any]:
    """Weights count by their names, and those in folders of this machine by content as well."""
    folders = {part: shipped(getattr(recipe.model, part)) for part in PARTS}
    content = {
        part: _content(folder, max(path.lstat().st_mtime_ns for path in folder.rglob("*")))
        for part, folder in folders.items()
        if (folder / "config.json").is_file()
    }
    return {**recipe.model.model_dump(mode="json"), "content": content}


@lru_cache
def _content(folder: Path, changed: int) -> str:
    """Hash a folder, once for each time of its last change."""
    return folder_hash(folder)


def _data(recipe: Recipe) -> dict[str, Any]:
    return recipe.data.model_dump(mode="json", exclude=SIDE_BY_SIDE)


def _benchmarks(recipe: Recipe) -> list[dict[str, Any]]:
    benchmarks = recipe.evaluation.benchmarks
    return [benchmark.model_dump(mode="json", exclude={"held_out"}) for benchmark in benchmarks]


def _hash(content: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()
