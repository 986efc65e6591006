"""What the four training tasks share: a tracked child run around `siqvl.training.run`."""

from __future__ import annotations

from siqvl.recipe import Recipe, Stage
from siqvl.tracking.runs import stage_run
from siqvl.training.run import train_stage
from tasks.contracts import (
    Checkpoint,
    PipelineRun,
    PreparedData,
    local,
    local_if_given,
    workspace,
)


def train(
    stage: Stage,
    recipe: Recipe,
    run: PipelineRun,
    data: PreparedData,
    checkpoint: Checkpoint | None = None,
) -> Checkpoint:
    """Train one stage inside its MLflow run and hand its checkpoint on."""
    # The control of stage 1 goes beside stage 1 itself.
    name = stage.value + ("-random_tower" if recipe.model.random_tower else "")
    out = workspace(recipe, run) / "checkpoints" / name
    rows, parent = local(data), local_if_given(checkpoint)
    with stage_run(recipe, name, run.parent, {"siqvl.stage": stage.value}) as log:
        card = train_stage(stage, recipe, data=rows, checkpoint=parent, output=out, log=log)
        log.metrics(card.metrics)
        log.artifact(out, "checkpoint")
        log.artifact(rows / "manifest.json", "data")
    return Checkpoint(str(out))
