"""Stage 4, DPO: preferred answers over rejected ones.

pyflyte run tasks/dpo.py dpo --checkpoint DIR --data DIR
"""

from __future__ import annotations

from siqvl.recipe import Recipe, Stage
from tasks.contracts import ALONE, TINY, Checkpoint, PipelineRun, PreparedData
from tasks.training import train, training_task


@training_task
def dpo(
    checkpoint: Checkpoint, data: PreparedData, recipe: Recipe = TINY, run: PipelineRun = ALONE
) -> Checkpoint:
    """Train on prepared `dpo` rows, continuing from the stage before."""
    return train(Stage.DPO, recipe, run, data, checkpoint)
