"""Stage 3, chain-of-thought SFT: answers after written reasoning.

pyflyte run tasks/cot_sft.py cot_sft --checkpoint DIR --data DIR
"""

from __future__ import annotations

from siqvl.recipe import Recipe, Stage
from tasks.contracts import ALONE, TINY, Checkpoint, PipelineRun, PreparedData
from tasks.training import train, training_task


@training_task
def cot_sft(
    checkpoint: Checkpoint, data: PreparedData, recipe: Recipe = TINY, run: PipelineRun = ALONE
) -> Checkpoint:
    """Train on prepared `cot_sft` rows, continuing from the stage before."""
    return train(Stage.COT_SFT, recipe, run, data, checkpoint)
