"""What Flyte's cache goes by in place of the recipe that a step is given.

`siqvl/recipe/keys.py` says which of its keys matter to a step. Here comes what a recipe does not
say: what lies at the addresses of its sources now, and the versions of the libraries that compute.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from functools import lru_cache
from importlib.metadata import version

from siqvl.data import sources
from siqvl.recipe import Recipe, Source, Stage
from siqvl.recipe.keys import benchmarks_key, data_key, evaluation_key, pairs_key, training_key
from siqvl.training.resuming import LIBRARIES

#: Libraries whose trainer a stage runs on, beside Hugging Face's.
TRAINERS = {Stage.RLVR: ("trl",)}
#: It decides the pixels of a picture.
DECODING = ("pillow",)


def prepared_rows(recipe: Recipe, stage: Stage) -> str:
    """Return what the cache of a stage's prepared rows goes by; nothing where it has no rows."""
    if stage not in recipe.trained:
        return ""
    return _hash(data_key(recipe, stage), DECODING, recipe.stage(stage).sources)


def prepared_benchmarks(recipe: Recipe) -> str:
    """Return what the cache of the prepared benchmarks goes by."""
    return _hash(benchmarks_key(recipe), DECODING, benchmark_sources(recipe))


def trained(recipe: Recipe, stage: Stage) -> str:
    """Return what the cache of a stage's checkpoint goes by, beside its rows and its parent.

    Nothing where the recipe has no such stage.
    """
    if stage not in recipe.trained:
        return ""
    adapters = ("peft",) if recipe.stage(stage).adapter is not None else ()
    libraries = (*LIBRARIES, *TRAINERS.get(stage, ()), *adapters)
    return _hash(training_key(recipe, stage), libraries)


def sampled_pairs(recipe: Recipe) -> str:
    """Return what the cache of the pairs that a checkpoint writes goes by."""
    sampled = recipe.stages.dpo.sampled
    asked = [sampled.source] if sampled else []
    return _hash(pairs_key(recipe), (*LIBRARIES, *DECODING), asked)


def scored(recipe: Recipe) -> str:
    """Return what the cache of a checkpoint's scores goes by, beside it and the benchmarks."""
    training = [one.training for one in recipe.evaluation.benchmarks if one.training]
    return _hash(evaluation_key(recipe), LIBRARIES, training)


def states(read: Iterable[Source]) -> str:
    """Return what was at the addresses of sources when this process first looked."""
    return _hash("", (), read)


def look_again() -> None:
    """Forget what was at the addresses of sources; each is asked for once until then."""
    _state.cache_clear()


def benchmark_sources(recipe: Recipe) -> list[Source]:
    """Return the sources of all benchmarks."""
    found = [(one.source, one.training) for one in recipe.evaluation.benchmarks]
    return [source for pair in found for source in pair if source is not None]


def _hash(key: str, libraries: Iterable[str], read: Iterable[Source] = ()) -> str:
    parts = [key, *(f"{name} {version(name)}" for name in libraries)]
    parts += [_state(source.model_dump_json()) for source in read]
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()


@lru_cache
def _state(source: str) -> str:
    """The state of a source, which the hub is asked for, once for all steps that read it."""
    return sources.state(Source.model_validate_json(source))
