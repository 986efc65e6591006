"""Preference pairs that the checkpoint DPO starts from writes itself: right against wrong answers.

pyflyte run tasks/preference_pairs.py preference_pairs --checkpoint DIR --data DIR --benchmarks DIR
"""

from __future__ import annotations

from typing import NamedTuple

from flytekit import task

from siqvl.recipe import Recipe
from tasks.contracts import ALONE, TINY, Checkpoint, PipelineRun, PreparedData
from tasks.resources import heavy


class PreferencePairs(NamedTuple):
    """Rows to train on and rows to score, each with the pairs that were sampled."""

    data: PreparedData
    benchmarks: PreparedData


@task(**heavy(), enable_deck=True, deck_fields=())
def preference_pairs(
    checkpoint: Checkpoint,
    data: PreparedData,
    benchmarks: PreparedData,
    recipe: Recipe = TINY,
    run: PipelineRun = ALONE,
) -> PreferencePairs:
    """Add sampled pairs to the prepared `dpo` rows, and to the benchmarks that consist of them.

    What nothing is added to is handed on as it came.
    """
    if recipe.stages.dpo.sampled is None:
        return PreferencePairs(data=data, benchmarks=benchmarks)
    raise NotImplementedError
