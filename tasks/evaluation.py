"""Evaluation: a checkpoint on the benchmarks of its stage, beside baselines that cannot see.

pyflyte run tasks/evaluation.py evaluation --checkpoint DIR --data DIR --recipe recipes/tiny.yaml

`evaluation` does it in one task. `evaluate_shard` and `merge_evaluation` do the same work side by
side (`workflows/evaluated.py` maps one over the shards and ends with the other); answers and scores
come out equal either way.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from flytekit import task

from siqvl.checkpoint import read_card
from siqvl.evaluation.evaluate import answer_shard, evaluate, merge_answers
from siqvl.evaluation.scoring.scores import Scores, stage_table
from siqvl.recipe import Recipe
from siqvl.recipe.compute import Kind
from siqvl.registry.versions import CHECKPOINT
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
from tasks.given import begun
from tasks.once import once
from tasks.pod_start import import_at_once
from tasks.resources import cached, policy
from tasks.tracked import share
from tasks.training import run_name, run_tags

#: What answering imports, torch and transformers with it.
ANSWERING = ("siqvl.data.features.build_features", "siqvl.evaluation.asking.predict")


@task(**policy(Kind.EVALUATION), cache=cached(), enable_deck=True, deck_fields=())
@begun
def evaluation(
    checkpoint: Checkpoint, data: PreparedData, recipe: Recipe = TINY, run: PipelineRun = ALONE
) -> EvalReport:
    """Score a checkpoint with and without the pictures; predictions are kept."""

    def score(*args: Any, **named: Any) -> Scores:
        import_at_once(*ANSWERING)
        return evaluate(*args, **named)

    return _scored(score, checkpoint, data, recipe, run)


@task(**policy(Kind.EVALUATION))
@begun
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
    with share(recipe, run):
        import_at_once(*ANSWERING)
        answer_shard(
            recipe, checkpoint=model, data=local(data), out=out, shard=shard, shards=shards
        )
    return EvalReport(str(out))


@task(**policy(Kind.DATA), enable_deck=True, deck_fields=())
@begun
def merge_evaluation(
    shards: list[EvalReport],
    checkpoint: Checkpoint,
    data: PreparedData,
    recipe: Recipe = TINY,
    run: PipelineRun = ALONE,
) -> EvalReport:
    """Bring the answers together and score them."""
    merge = partial(merge_answers, [local(shard) for shard in shards])
    return _scored(merge, checkpoint, data, recipe, run)


def _place(checkpoint: Path, recipe: Recipe, run: PipelineRun) -> Path:
    card = read_card(checkpoint)
    return workspace(recipe, run) / "evaluation" / run_name(card.stage, card.control)


def _scored(
    score: Callable[..., Scores],
    checkpoint: Checkpoint,
    data: PreparedData,
    recipe: Recipe,
    run: PipelineRun,
) -> EvalReport:
    """Score a checkpoint in an MLflow run, which keeps the scores as metrics and the report.

    The report is a deck as well, and its table is printed for who looks on.
    """
    model, benchmarks = local(checkpoint), local(data)
    out = _place(model, recipe, run)
    card, name = read_card(model), f"{out.name} evaluation"

    def keep(log: RunLog) -> None:
        scores = Scores.read(out)
        for one in scores.scores:
            log_inputs(log, benchmarks / one.benchmark, "evaluation")
        log.metrics(scores.metrics())
        log.artifact(out, "evaluation")
        keep_answers(log, out, benchmarks, recipe.evaluation.report_pictures)
        show(name, out / "report.html")
        print(stage_table([scores]))

    once(
        name,
        recipe,
        run,
        out,
        tags={**run_tags(card.stage, card.control), CHECKPOINT: card.hash},
        reads=[model, benchmarks],
        make=lambda _: score(recipe, checkpoint=model, data=benchmarks, out=out),
        keep=keep,
    )
    return EvalReport(str(out))
