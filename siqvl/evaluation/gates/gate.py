"""Gates: what a recipe claims about its stages, tested on paired differences.

A claim holds when the whole 95 % interval of the difference lies where the gate says. What could
not be tested has not held.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from siqvl.errors import UserError
from siqvl.evaluation.gates.verdict import Side, Verdict, required
from siqvl.evaluation.paired import Comparison, compare
from siqvl.evaluation.scoring.scores import Scores
from siqvl.number_formats import percent, points, span
from siqvl.recipe import Control, Gate, Stage
from siqvl.stages import STAGES

#: A model that was scored: its stage, and which control it is, if one.
Model = tuple[Stage, Control | None]
Found = dict[Model, tuple[Scores, Path]]


def judge(gates: Sequence[Gate], reports: Sequence[Path]) -> list[Verdict]:
    """Tests every gate on EvalReport directories, which say themselves what they are about.

    A gate whose report or answers are missing fails with a sentence that says so.

    Raises:
        UserError: a directory is no report, or two are about the same stage.
    """
    found: Found = {}
    for report in reports:
        scores = Scores.read(report)
        model = (scores.stage, scores.control)
        if model in found:
            raise UserError(
                f"{found[model][1]} and {report} both hold scores of {_title(model)}; give one of "
                "them"
            )
        found[model] = scores, report
    return [_judge(gate, found) for gate in gates]


def _judge(gate: Gate, found: Found) -> Verdict:
    side, rival = (_as_judged(side, found) for side in _sides(gate))
    comparison: Comparison | None = None
    try:
        report, rival_report = _report(found, side), _report(found, rival)
        comparison = compare(
            report, rival_report, side.benchmark, rival.benchmark, side.player, rival.player
        )
        reason = _figures(gate, comparison)
    except UserError as error:
        reason = f"not tested, {error.message}"
    held = comparison is not None and _holds(gate, comparison.interval)
    verdict = Verdict(
        claim=gate.claim,
        passed=held,
        side=side,
        rival=rival,
        above=gate.above,
        below=gate.below,
        n=comparison.n if comparison else 0,
        mean=comparison.mean_a if comparison else None,
        rival_mean=comparison.mean_b if comparison else None,
        difference=comparison.difference if comparison else None,
        interval=comparison.interval if comparison else None,
        sentence="",
    )
    how = f" [{verdict.judged}]" if comparison else ""
    sentence = f"{verdict.outcome}: {gate.claim.rstrip('.')}: {reason}{how}"
    return verdict.model_copy(update={"sentence": sentence})


def _sides(gate: Gate) -> tuple[Side, Side]:
    """Both sides in full: what the rival leaves out is as on the gate's own side."""
    over = gate.over
    side = Side(
        stage=gate.stage,
        random_tower=gate.random_tower,
        likelihood_control=gate.likelihood_control,
        benchmark=gate.benchmark,
        player="picture",
    )
    rival = Side(
        stage=over.stage or gate.stage,
        random_tower=over.random_tower,
        likelihood_control=over.likelihood_control,
        benchmark=over.benchmark or gate.benchmark,
        player=over.player,
    )
    return side, rival


def _as_judged(side: Side, found: Found) -> Side:
    """The side with how its benchmark was asked and scored, where it was."""
    scored = found.get((side.stage, side.control))
    score = scored[0].find(side.benchmark) if scored else None
    return side.model_copy(update={"judged": score.judged}) if score else side


def _report(found: Found, side: Side) -> Path:
    model = (side.stage, side.control)
    if model not in found:
        raise UserError(f"there is no evaluation of {_title(model)}")
    return found[model][1]


def _holds(gate: Gate, interval: tuple[float, float]) -> bool:
    """Strictly: an interval that touches the bound leaves the bound possible."""
    low, high = interval
    return (gate.above is None or low > gate.above) and (gate.below is None or high < gate.below)


def _figures(gate: Gate, comparison: Comparison) -> str:
    return (
        f"{percent(comparison.mean_a)} against {percent(comparison.mean_b)}, "
        f"{points(comparison.difference)} points (95 % interval {span(comparison.interval)}, must "
        f"lie {required(gate.above, gate.below)})"
    )


def _title(model: Model) -> str:
    stage, control = model
    return STAGES[stage].title + (f" {control.phrase}" if control else "")
