"""What a pipeline found out: its gates judged, the stage table, and one page with all of it.

Everything is kept before anybody may stop at a failed gate, see `tasks/promotion.py`.
"""

from __future__ import annotations

from pathlib import Path

from flytekit import task

from siqvl.evaluation.gates.gate import judge
from siqvl.evaluation.gates.verdict import Verdict, gate_table, summary, write_verdicts
from siqvl.evaluation.over_controls import OverControl, control_table, over_controls
from siqvl.evaluation.scoring.scores import Scores, stage_table
from siqvl.recipe import Recipe
from siqvl.recipe.compute import Kind
from siqvl.report.pipeline_page import PAGE, write_page
from siqvl.tracking.runs import RunLog
from tasks.contracts import (
    Checkpoint,
    EvalReport,
    PipelineReport,
    PipelineRun,
    PreparedData,
    local,
    workspace,
)
from tasks.decks import show
from tasks.given import begun
from tasks.resources import policy
from tasks.tracked import of_pipeline

STAGES_TABLE = "stages.txt"


@task(**policy(Kind.DATA), enable_deck=True, deck_fields=())
@begun
def pipeline_report(
    recipe: Recipe,
    run: PipelineRun,
    checkpoints: list[Checkpoint],
    reports: list[EvalReport],
    controls: list[EvalReport],
    benchmarks: PreparedData,
) -> PipelineReport:
    """Judge the recipe's gates and keep what people look at.

    Args:
        checkpoints: the stages, in order.
        reports: their evaluations, in order.
        controls: the evaluations of the recipe's controls.
        benchmarks: their pictures, for the page.
    """
    out = workspace(recipe, run) / "report"
    out.mkdir(parents=True, exist_ok=True)
    with of_pipeline(recipe, run) as log:
        scored = [local(report) for report in [*reports, *controls]]
        verdicts = judge(recipe.evaluation.gates, scored)
        write_verdicts(verdicts, out)
        scores = [Scores.read(report) for report in scored]
        compared = over_controls(scored)
        tables = _tables(scores, compared, verdicts)
        (out / STAGES_TABLE).write_text(tables + "\n", encoding="utf-8")
        write_page(
            recipe,
            out,
            run=run.name,
            checkpoints=[local(checkpoint) for checkpoint in checkpoints],
            reports=scored,
            benchmarks=local(benchmarks),
            verdicts=verdicts,
            compared=compared,
        )
        for one in compared:
            log.metrics(one.metrics())
        _log(log, scores[: len(reports)], verdicts, out)
    show("pipeline", out / PAGE)
    print(f"\n{tables}\n\nreport: {out / PAGE}\n")
    return PipelineReport(str(out))


def _tables(scores: list[Scores], compared: list[OverControl], verdicts: list[Verdict]) -> str:
    """Every stage on every benchmark, then over its control, then every gate."""
    controls = [control_table(compared)] if compared else []
    gates = [gate_table(verdicts)] if verdicts else []
    return "\n\n".join([stage_table(scores), *controls, *gates, summary(verdicts)])


def _log(log: RunLog, scores: list[Scores], verdicts: list[Verdict], out: Path) -> None:
    for step, report in enumerate(scores, start=1):
        log.metrics(report.metrics(), step=step)  # one step a stage: the curve shows the climb
    for number, verdict in enumerate(verdicts, start=1):
        gate = f"gate/{number:02d}"
        log.tags({f"siqvl.{gate.replace('/', '.')}": verdict.sentence})
        values = {f"{gate}/passed": float(verdict.passed)}
        if verdict.difference is not None and verdict.interval is not None:
            values |= {
                f"{gate}/difference": verdict.difference,
                f"{gate}/difference_low": verdict.interval[0],
                f"{gate}/difference_high": verdict.interval[1],
            }
        log.metrics(values)
    for file in sorted(out.iterdir()):
        log.artifact(file)
