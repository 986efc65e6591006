"""Stage `rlvr`: the model answers questions, and learns from the answers that a scorer finds right.

pyflyte run tasks/rlvr.py rlvr --checkpoint DIR --data DIR

It continues from a checkpoint of `cot_sft` or of `dpo`. Its recipe, unless another is given, is
`recipes/rewards.yaml`: the tiny one has no such stage.
"""

from __future__ import annotations

from siqvl.recipe import Recipe, Stage
from tasks.contracts import ALONE, Checkpoint, PipelineRun, PreparedData
from tasks.default_recipe import default_recipe
from tasks.training import train, training_task

REWARDS: Recipe = default_recipe("rewards.yaml")


@training_task
def rlvr(
    checkpoint: Checkpoint, data: PreparedData, recipe: Recipe = REWARDS, run: PipelineRun = ALONE
) -> Checkpoint:
    """Train on prepared questions, continuing from the checkpoint of stage 3 or 4."""
    return train(Stage.RLVR, recipe, run, data, checkpoint)
