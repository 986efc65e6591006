"""The verdict in one line, and a card for every gate with its interval drawn."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

from siqvl.evaluation.gates.verdict import Verdict, bound_points, points, required, span, summary
from siqvl.evaluation.scoring.scores import percent
from siqvl.page.axis import Axis
from siqvl.page.icons import icon, mark

#: Left free beside an interval, as a share of what is drawn, for the figures at its ends.
_MARGIN = 0.3


def banner(verdicts: Sequence[Verdict]) -> str:
    """What became of the pipeline, in one line."""
    outcome = "part" if not verdicts else "good" if all(v.passed for v in verdicts) else "bad"
    head, _, failed = summary(verdicts).partition(": ")
    promoted = "not promoted" if outcome == "bad" else "promoted"
    claims = f"<p>{escape(failed[:1].upper() + failed[1:])}</p>" if failed else ""
    return (
        f'<div class="banner {outcome}">{icon(outcome)}<div>'
        f"<h1>{escape(head[:1].upper() + head[1:])}: {promoted}</h1>{claims}</div></div>"
    )


def gate_cards(verdicts: Sequence[Verdict]) -> str:
    """Every gate: its claim, its outcome, and by how much."""
    if not verdicts:
        return "<p class=note>The recipe has no gates (<code>evaluation.gates</code>).</p>"
    return f'<div class="grid wide">{"".join(_card(verdict) for verdict in verdicts)}</div>'


def _card(verdict: Verdict) -> str:
    outcome = "good" if verdict.passed else "bad"
    head = (
        f'<article class="card gate {outcome}"><header>{mark(outcome, verdict.outcome)}'
        f"<h3>{escape(verdict.claim)}</h3></header>"
    )
    if verdict.interval is None or verdict.difference is None:
        _, _, reason = verdict.sentence.rpartition(": not tested, ")
        return f"{head}<p>Not tested: {escape(reason)}.</p></article>"
    return (
        f"{head}<dl class=sides>"
        f"<div><dt>{escape(verdict.side.label)}</dt><dd>{percent(verdict.mean)}</dd></div>"
        f"<div><dt>{escape(verdict.rival.label)}</dt><dd>{percent(verdict.rival_mean)}</dd></div>"
        f"<div class=difference><dt>difference</dt><dd>{points(verdict.difference)} points</dd>"
        f"</div></dl>{_drawn(verdict, verdict.difference, verdict.interval)}"
        f"<p class=small>95 % interval {span(verdict.interval)} must lie "
        f"{required(verdict.above, verdict.below)}; {verdict.n:,} questions, paired.</p></article>"
    )


def _drawn(verdict: Verdict, difference: float, interval: tuple[float, float]) -> str:
    """The interval beside where it must lie; every gate has an axis of its own."""
    low, high = interval
    bounds = [bound for bound in (verdict.above, verdict.below) if bound is not None]
    marks = [low, high, *bounds]
    width = max(max(marks) - min(marks), 0.01)
    axis = Axis(min(marks) - _MARGIN * width, max(marks) + _MARGIN * width)
    start = axis.low if verdict.above is None else verdict.above
    end = axis.high if verdict.below is None else verdict.below
    zone = f'x="{axis.percent(start)}" width="{100 * (axis.share(end) - axis.share(start)):.2f}%"'
    lines = "".join(
        f'<line class=bound x1="{axis.percent(bound)}" x2="{axis.percent(bound)}" y1=4 y2=36 />'
        f'<text x="{axis.percent(bound)}" y=50 text-anchor=middle>'
        f"{bound_points(bound)}</text>"
        for bound in bounds
    )
    ends = "".join(
        f'<line class=whisker x1="{axis.percent(x)}" x2="{axis.percent(x)}" y1=14 y2=26 />'
        f'<text x="{axis.percent(x)}" dx={shift} y=24 text-anchor={anchor}>{points(x)}</text>'
        for x, shift, anchor in ((low, -6, "end"), (high, 6, "start"))
    )
    label = f"difference {points(difference)} points, 95 % interval {span(interval)}"
    return (
        f'<svg class=interval role=img aria-label="{label}">'
        f"<rect class=zone {zone} y=4 height=32 />{lines}"
        f'<line class=whisker x1="{axis.percent(low)}" x2="{axis.percent(high)}" y1=20 y2=20 />'
        f'{ends}<circle cx="{axis.percent(difference)}" cy=20 r=4.5 /></svg>'
    )
