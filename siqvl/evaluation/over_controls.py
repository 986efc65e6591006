"""Every stage beside its control, on every benchmark that both answered, question by question."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from siqvl.evaluation.paired import Comparison, compare
from siqvl.evaluation.scoring.scores import Scores
from siqvl.number_formats import percent, points, span
from siqvl.recipe import Control
from siqvl.stages import STAGES
from siqvl.text_table import text_table

HEAD = ("over its control", "benchmark", "n", "score", "control", "points", "95 % interval", "")


@dataclass(frozen=True)
class OverControl:
    """A stage and its control on one benchmark."""

    control: Control
    benchmark: str
    judged: str  # how it was asked and scored
    comparison: Comparison  # of the stage over its control

    @property
    def title(self) -> str:
        """`DPO over likelihood alone`."""
        return f"{STAGES[self.control.stage].title} over {self.control.words}"

    @property
    def verdict(self) -> str:
        """Where the whole interval lies: `better`, `worse`, or `no difference shown`."""
        low, high = self.comparison.interval
        return "better" if low > 0 else "worse" if high < 0 else "no difference shown"

    def metrics(self) -> dict[str, float]:
        """Names the difference and its interval for MLflow."""
        name = f"control/{self.control}/{self.benchmark}/difference"
        low, high = self.comparison.interval
        return {name: self.comparison.difference, f"{name}_low": low, f"{name}_high": high}


def over_controls(reports: Sequence[Path]) -> list[OverControl]:
    """Compares every control among some EvalReport directories with its stage, if that is there.

    Raises:
        UserError: a directory is no report, or the two answered different questions.
    """
    scored = [(Scores.read(report), report) for report in reports]
    stages = {scores.stage: (scores, report) for scores, report in scored if not scores.control}
    found = []
    for scores, report in scored:
        if scores.control is None or scores.stage not in stages:
            continue
        own, own_report = stages[scores.stage]
        for score in own.scores:
            if scores.find(score.benchmark) is not None:
                compared = compare(own_report, report, score.benchmark)
                found.append(OverControl(scores.control, score.benchmark, score.judged, compared))
    return found


def control_table(found: Sequence[OverControl]) -> str:
    """Writes a line for every stage and benchmark, and below it how each was asked and scored."""
    rows = [HEAD]
    notes: dict[str, None] = {}
    for one in found:
        compared = one.comparison
        notes[f"{one.benchmark}: {one.judged}"] = None
        rows.append(
            (
                one.title,
                one.benchmark,
                f"{compared.n:,}",
                percent(compared.mean_a),
                percent(compared.mean_b),
                points(compared.difference),
                span(compared.interval),
                one.verdict,
            )
        )
    return "\n".join([*text_table(rows, left=(0, 1, len(HEAD) - 1)), *notes])
