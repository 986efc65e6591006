"""Evaluation: exact match on the benchmarks of a checkpoint's stage, beside the floors.

pyflyte run tasks/evaluation.py evaluation --checkpoint DIR --data DIR --recipe recipes/tiny.yaml
"""

from __future__ import annotations

from flytekit import task

from siqvl.evaluation.evaluate import evaluate
from siqvl.evaluation.scores import stage_table
from siqvl.recipe import Recipe
from siqvl.tracking.runs import stage_run
from tasks.contracts import (
    ALONE,
    TINY,
    Checkpoint,
    EvalReport,
    PipelineRun,
    PreparedData,
    local,
    stage_of,
    workspace,
)
from tasks.resources import heavy


@task(**heavy())
def evaluation(
    checkpoint: Checkpoint, data: PreparedData, recipe: Recipe = TINY, run: PipelineRun = ALONE
) -> EvalReport:
    """Score a checkpoint with and without the pictures; predictions are kept."""
    model = local(checkpoint)
    stage = stage_of(model).value
    out = workspace(recipe, run) / "evaluation" / stage
    with stage_run(recipe, f"{stage} evaluation", run.parent, {"siqvl.stage": stage}) as log:
        scores = evaluate(recipe, checkpoint=model, data=local(data), out=out)
        log.metrics(scores.metrics())
        log.artifact(out, "evaluation")
    print(stage_table([scores]))
    return EvalReport(str(out))
