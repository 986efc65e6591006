"""The verdict in one line, and what is drawn for every gate: `gate_cards.html.jinja`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from siqvl.evaluation.gates.verdict import Verdict, required, summary
from siqvl.page.axis import Axis

#: Left free beside an interval, as a share of what is drawn, for the figures at its ends.
_MARGIN = 0.3


class Banner(NamedTuple):
    """What became of the pipeline, in one line."""

    outcome: str  # good, bad or part
    headline: str
    failed: str  # claims that do not hold


class GateChart(NamedTuple):
    """The interval of a gate beside where it must lie; every gate has an axis of its own."""

    axis: Axis
    bounds: list[float]
    zone: tuple[float, float]  # where the interval must lie
    required: str  # the same in words


def banner(verdicts: Sequence[Verdict]) -> Banner:
    """What became of the pipeline."""
    outcome = "part" if not verdicts else "good" if all(v.passed for v in verdicts) else "bad"
    head, _, failed = summary(verdicts).partition(": ")
    promoted = "not promoted" if outcome == "bad" else "promoted"
    return Banner(outcome, f"{head}: {promoted}", failed)


def gate_chart(verdict: Verdict) -> GateChart | None:
    """The chart of one gate; None where it was not tested."""
    if verdict.interval is None:
        return None
    bounds = [bound for bound in (verdict.above, verdict.below) if bound is not None]
    marks = [*verdict.interval, *bounds]
    width = max(max(marks) - min(marks), 0.01)
    axis = Axis(min(marks) - _MARGIN * width, max(marks) + _MARGIN * width)
    start = axis.low if verdict.above is None else verdict.above
    end = axis.high if verdict.below is None else verdict.below
    return GateChart(axis, bounds, (start, end), required(verdict.above, verdict.below))
