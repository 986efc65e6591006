"""`report.html`: one file that needs no other, no script and no network."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from siqvl.checkpoint import CheckpointCard, read_card, read_history
from siqvl.evaluation.gates.verdict import Verdict
from siqvl.evaluation.over_controls import OverControl
from siqvl.evaluation.scoring.scores import OTHERS, Scores
from siqvl.evaluation.shown_answers import pick_samples, pictures_of, written_answers
from siqvl.page.render import render
from siqvl.recipe import PIPELINE, Recipe
from siqvl.report.benchmark_scores import by_benchmark
from siqvl.report.curves import Curve, loss_curve
from siqvl.report.gate_cards import banner, gate_chart
from siqvl.stages import STAGES

PAGE = "report.html"


def write_page(
    recipe: Recipe,
    out: Path,
    *,
    run: str,
    checkpoints: Sequence[Path],
    reports: Sequence[Path],
    benchmarks: Path,
    verdicts: Sequence[Verdict],
    compared: Sequence[OverControl],
) -> None:
    """Write `out/report.html`.

    Args:
        run: name of the pipeline's run.
        checkpoints: checkpoint directories of the stages, in order.
        reports: EvalReport directories, those of controls among them.
        benchmarks: what `prepare_benchmarks` wrote, for the pictures.
        verdicts: of the recipe's gates.
        compared: stages beside their controls.
    """
    scored = sorted(
        ((Scores.read(report), report) for report in reports),
        key=lambda pair: (list(STAGES).index(pair[0].stage), bool(pair[0].control)),
    )
    scores = [one for one, _ in scored]
    trained = [(read_card(checkpoint), checkpoint) for checkpoint in checkpoints]
    samples = pick_samples(
        [(one, written_answers(report)) for one, report in scored if not one.control],
        recipe.evaluation.report_pictures,
    )
    there = {*PIPELINE, *(one.stage for one in scores)}
    stages = [stage for stage in STAGES if stage in there]
    benchmarks_of = recipe.evaluation.benchmarks
    usual, held_out = (
        by_benchmark(scores, [one.name for one in benchmarks_of if one.held_out is is_held], stages)
        for is_held in (False, True)
    )
    page = render(
        "report/pipeline_page.html.jinja",
        recipe=recipe,
        run=run,
        banner=banner(verdicts),
        gates=[(verdict, gate_chart(verdict)) for verdict in verdicts],
        compared=compared,
        usual=usual,
        held_out=held_out,
        players=list(OTHERS.values()),
        stages=[STAGES[stage].title for stage in stages],
        curves=[(STAGES[card.stage].title, _curve(card, path)) for card, path in trained],
        samples=samples,
        pictures=pictures_of(samples, benchmarks),
        origins=[(STAGES[card.stage].title, card) for card, _ in trained],
    )
    (out / PAGE).write_text(page, encoding="utf-8")


def _curve(card: CheckpointCard, checkpoint: Path) -> Curve | None:
    """The loss of one stage."""
    return loss_curve(card.stage, read_history(checkpoint), card.metrics.get("train_runtime"))
