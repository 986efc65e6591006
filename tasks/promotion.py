"""The last step of a pipeline: its checkpoint is promoted if every gate passed."""

from __future__ import annotations

from typing import NamedTuple

from flytekit import task

from siqvl.compute import Kind
from siqvl.errors import UserError
from siqvl.evaluation.verdict import read_verdicts, summary
from siqvl.recipe import Recipe
from siqvl.tracking.runs import end_run
from tasks.contracts import Checkpoint, PipelineReport, PipelineRun, local
from tasks.resources import policy
from tasks.tracked import of_pipeline


class PipelineResult(NamedTuple):
    """What a pipeline hands over."""

    checkpoint: Checkpoint
    report: PipelineReport
    mlflow_run: str


@task(**policy(Kind.DATA))
def promotion(
    recipe: Recipe, run: PipelineRun, checkpoint: Checkpoint, report: PipelineReport
) -> PipelineResult:
    """Hand the checkpoint over and close the parent run.

    Raises:
        UserError: a gate failed; the run ends FAILED, and what it made stays where it is.
    """
    with of_pipeline(recipe, run) as log:
        verdicts = read_verdicts(local(report))
        failed = [verdict.sentence for verdict in verdicts if not verdict.passed]
        log.tags({"siqvl.promoted": "false" if failed else "true"})
        if failed:
            raise UserError(
                f"not promoted: {len(failed)} of {len(verdicts)} gates failed; the checkpoint and "
                f"its report are kept: {' | '.join(failed)}"
            )
        print(f"promoted {checkpoint.path}: {summary(verdicts)}")
        end_run(log, "FINISHED")
    return PipelineResult(checkpoint=checkpoint, report=report, mlflow_run=run.run_id)
