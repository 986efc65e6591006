"""Learning from rewards after stage 3, scored before and after, with a gate of its own.

pyflyte run workflows/rewards.py rewards --checkpoint DIR

The checkpoint is one of `cot_sft` (or `dpo`), such as `make pipeline` leaves. The same command
again goes on where it was killed, or failed; with `--fresh` it begins anew.
"""

from __future__ import annotations

from flytekit import dynamic, workflow

from siqvl.recipe import Recipe, Stage
from siqvl.recipe.compute import Kind
from tasks.contracts import Checkpoint
from tasks.pipeline_failure import close_rewards_run
from tasks.pipeline_report import pipeline_report
from tasks.promotion import PipelineResult, promotion
from tasks.resources import planner
from tasks.rlvr import REWARDS
from workflows.full_pipeline import Steps


@workflow(on_failure=close_rewards_run)
def rewards(
    checkpoint: Checkpoint, recipe: Recipe = REWARDS, fresh: bool = False
) -> PipelineResult:
    """Train stage `rlvr` from a checkpoint, and promote the outcome if the recipe's gates pass."""
    trained, report, mlflow_run = rewarded(checkpoint=checkpoint, recipe=recipe, fresh=fresh)
    return PipelineResult(checkpoint=trained, report=report, mlflow_run=mlflow_run)


@dynamic(**planner())
def rewarded(checkpoint: Checkpoint, recipe: Recipe, fresh: bool = False) -> PipelineResult:
    """The tasks of one recipe, which says what each of them asks of the cluster."""
    steps = Steps(recipe, fresh)
    before = steps.scored(checkpoint, steps.benchmarks)
    trained = steps.trained(Stage.RLVR, steps.prepared(Stage.RLVR), checkpoint)
    after = steps.scored(trained, steps.benchmarks)
    report = steps.on(
        Kind.DATA,
        pipeline_report(
            recipe=recipe,
            run=steps.opened.run,
            checkpoints=[checkpoint, trained],
            reports=[before, after],
            controls=[],
            benchmarks=steps.benchmarks,
        ),
    )
    promoted = promotion(
        recipe=recipe, run=steps.opened.run, checkpoint=trained, scores=after, report=report
    )
    return steps.on(Kind.DATA, promoted)
