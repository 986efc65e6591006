"""Stage 2, VQA SFT: projector and language model learn to answer questions about pictures.

pyflyte run tasks/vqa_sft.py vqa_sft --checkpoint DIR --data DIR
"""

from __future__ import annotations

from siqvl.recipe import Recipe, Stage
from tasks.contracts import ALONE, TINY, Checkpoint, PipelineRun, PreparedData
from tasks.training import train, training_task


@training_task
def vqa_sft(
    checkpoint: Checkpoint, data: PreparedData, recipe: Recipe = TINY, run: PipelineRun = ALONE
) -> Checkpoint:
    """Train on prepared `vqa_sft` rows, continuing from the stage before."""
    return train(Stage.VQA_SFT, recipe, run, data, checkpoint)
