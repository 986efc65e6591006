"""The last step of a pipeline: its checkpoint is promoted if every gate passed.

In MLflow's registry it is the `candidate` then, and the `champion` if it beats the one that is.
"""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

from flytekit import task

from siqvl.checkpoint import verify_checkpoint
from siqvl.errors import UserError
from siqvl.evaluation.gates.verdict import read_verdicts, summary
from siqvl.evaluation.scoring.scores import Scores
from siqvl.recipe import Recipe
from siqvl.recipe.compute import Kind
from siqvl.registry.promotion import make_candidate, promote
from siqvl.registry.versions import CHECKPOINT, Registry, RegistryAway
from siqvl.tracking.runs import RunLog, end_run
from tasks.contracts import (
    Checkpoint,
    EvalReport,
    PipelineReport,
    PipelineRun,
    local,
    on_cluster,
    workspace,
)
from tasks.given import begun
from tasks.resources import policy
from tasks.tracked import of_pipeline
from tasks.unfinished import finish

#: Tags of the pipeline's run: whether its gates passed, and what became of the registry's champion.
PROMOTED = "siqvl.promoted"
CHAMPION = "siqvl.champion"


class PipelineResult(NamedTuple):
    """What a pipeline hands over."""

    checkpoint: Checkpoint
    report: PipelineReport
    mlflow_run: str


@task(**policy(Kind.DATA))
@begun
def promotion(
    recipe: Recipe,
    run: PipelineRun,
    checkpoint: Checkpoint,
    scores: EvalReport,
    report: PipelineReport,
) -> PipelineResult:
    """Hand the checkpoint over and close the parent run.

    Args:
        scores: the checkpoint's own evaluation.
        report: of the whole pipeline.

    Raises:
        UserError: a gate failed; the run ends FAILED, and what it made stays where it is.
    """
    with of_pipeline(recipe, run) as log:
        verdicts = read_verdicts(local(report))
        failed = [verdict.sentence for verdict in verdicts if not verdict.passed]
        count = f"{len(failed)} of {len(verdicts)} gates failed" if failed else ""
        champion = _registered(log, recipe, checkpoint, local(scores), failed=count)
        log.tags({PROMOTED: "false" if failed else "true", CHAMPION: champion})
        if failed:
            raise UserError(
                f"not promoted: {count}; the checkpoint and its report are kept: "
                f"{' | '.join(failed)}"
            )
        print(f"promoted {checkpoint.path}: {summary(verdicts)}\n{champion}")
        end_run(log, "FINISHED")
    if not on_cluster():
        finish(workspace(recipe, run))
    return PipelineResult(checkpoint=checkpoint, report=report, mlflow_run=run.run_id)


def _registered(
    log: RunLog, recipe: Recipe, checkpoint: Checkpoint, scored: Path, *, failed: str
) -> str:
    """Make the checkpoint the candidate and, unless gates failed, the champion if it is better.

    Work that is done is not lost because a server is away.

    Returns:
        What became of it, a sentence.
    """
    registry = Registry(log.uri, recipe.tracking.model_name)
    try:
        version = _version(log, registry, checkpoint, scored)
        benchmark = recipe.evaluation.champion_benchmark
        make_candidate(log, registry, version, scored, benchmark)
        if failed:
            return f"version {version} stays a candidate: {failed}"
        return promote(registry, version, scored, benchmark).sentence
    except RegistryAway as error:
        return f"there is no new candidate: {error.message}"


def _version(log: RunLog, registry: Registry, checkpoint: Checkpoint, scored: Path) -> int:
    """The checkpoint's version, which an earlier pipeline made when it came from the cache.

    Raises:
        UserError: the scores are another checkpoint's, or its files are not what its card says.
    """
    scored_hash = Scores.read(scored).checkpoint_hash
    model = local(checkpoint)
    if verify_checkpoint(model).hash != scored_hash:
        raise UserError(f"{scored} holds the scores of another checkpoint than {model}")
    known = registry.find({CHECKPOINT: scored_hash})
    return known.number if known is not None else registry.register(log, model)
