"""Evaluation: a checkpoint on the benchmarks of its stage, beside those that cannot see.

pyflyte run tasks/evaluation.py evaluation --checkpoint DIR --data DIR --recipe recipes/tiny.yaml

`evaluation` does it in one task. `evaluate_shard` and `merge_evaluation` do the same work side by
side (`workflows/evaluated.py` maps one over the shards and ends with the other); answers and scores
come out equal either way.
"""

from __future__ import annotations

from contextlib import AbstractContextManager
from pathlib import Path

from flytekit import task

from siqvl.checkpoint import read_card
from siqvl.evaluation.evaluate import answer_shard, evaluate, merge_answers
from siqvl.evaluation.scoring.scores import Scores, stage_table
from siqvl.recipe import Recipe
from siqvl.recipe.compute import Kind
from siqvl.report.answer_table import keep_answers
from siqvl.tracking.inputs import log_inputs
from siqvl.tracking.runs import RunLog
from tasks.contracts import (
    ALONE,
    TINY,
    Checkpoint,
    EvalReport,
    PipelineRun,
    PreparedData,
    local,
    workspace,
)
from tasks.decks import show
from tasks.resources import cached, policy
from tasks.tracked import tracked


@task(**policy(Kind.EVALUATION), cache=cached(), enable_deck=True, deck_fields=())
def evaluation(
    checkpoint: Checkpoint, data: PreparedData, recipe: Recipe = TINY, run: PipelineRun = ALONE
) -> EvalReport:
    """Score a checkpoint with and without the pictures; predictions are kept."""
    model, benchmarks = local(checkpoint), local(data)
    out = _place(model, recipe, run)
    with _run(model, recipe, run) as log:
        scores = evaluate(recipe, checkpoint=model, data=benchmarks, out=out)
        _keep(scores, out, log, benchmarks, recipe)
    return EvalReport(str(out))


@task(**policy(Kind.EVALUATION))
def evaluate_shard(
    shard: int,
    checkpoint: Checkpoint,
    data: PreparedData,
    recipe: Recipe = TINY,
    run: PipelineRun = ALONE,
) -> EvalReport:
    """Answer one share of the questions; what it hands on is no report yet."""
    model = local(checkpoint)
    place = _place(model, recipe, run)
    out = place.with_name(f"{place.name}.shard-{shard:03d}")
    shards = recipe.evaluation.shards
    answer_shard(recipe, checkpoint=model, data=local(data), out=out, shard=shard, shards=shards)
    return EvalReport(str(out))


@task(**policy(Kind.DATA), enable_deck=True, deck_fields=())
def merge_evaluation(
    shards: list[EvalReport],
    checkpoint: Checkpoint,
    data: PreparedData,
    recipe: Recipe = TINY,
    run: PipelineRun = ALONE,
) -> EvalReport:
    """Bring the answers together and score them."""
    model = local(checkpoint)
    out = _place(model, recipe, run)
    with _run(model, recipe, run) as log:
        answered = [local(shard) for shard in shards]
        scores = merge_answers(answered, recipe, checkpoint=model, data=local(data), out=out)
        _keep(scores, out, log, local(data), recipe)
    return EvalReport(str(out))


def _name(checkpoint: Path) -> str:
    """The stage; the control of stage 1 apart from stage 1 itself."""
    card = read_card(checkpoint)
    control = "-random_tower" if card.recipe.model.random_tower else ""
    return f"{card.stage.value}{control}"


def _place(checkpoint: Path, recipe: Recipe, run: PipelineRun) -> Path:
    return workspace(recipe, run) / "evaluation" / _name(checkpoint)


def _run(checkpoint: Path, recipe: Recipe, run: PipelineRun) -> AbstractContextManager[RunLog]:
    tags = {"siqvl.stage": read_card(checkpoint).stage.value}
    return tracked(recipe, f"{_name(checkpoint)} evaluation", run, tags)


def _keep(scores: Scores, out: Path, log: RunLog, data: Path, recipe: Recipe) -> None:
    """The scores as metrics, the report as artifact and as a deck; the table for who looks on."""
    for score in scores.scores:
        log_inputs(log, data / score.benchmark, "evaluation")
    log.metrics(scores.metrics())
    log.artifact(out, "evaluation")
    keep_answers(log, out, data, recipe.evaluation.report_pictures)
    show(f"{out.name} evaluation", out / "report.html")
    print(stage_table([scores]))
