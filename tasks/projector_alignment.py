"""Stage 1, projector alignment: only the projector learns to speak to the language model.

pyflyte run tasks/projector_alignment.py projector_alignment --data DIR
"""

from __future__ import annotations

from siqvl.recipe import Recipe, Stage
from tasks.contracts import ALONE, TINY, Checkpoint, PipelineRun, PreparedData
from tasks.training import train, training_task


@training_task
def projector_alignment(
    data: PreparedData, recipe: Recipe = TINY, run: PipelineRun = ALONE
) -> Checkpoint:
    """Assemble the model and train its projector on prepared `projector_alignment` rows."""
    return train(Stage.PROJECTOR_ALIGNMENT, recipe, run, data)
