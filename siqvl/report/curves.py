"""Loss curves: what was logged, and a moving mean of it, for every stage."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from siqvl.checkpoint import Logged
from siqvl.data.schema import RowKind
from siqvl.page.axis import Axis
from siqvl.recipe import Stage
from siqvl.stages import STAGES

#: The moving mean covers this share of the steps.
SMOOTHING = 0.06
#: Losses that fall by more than this factor are drawn on a logarithmic axis.
LOG_FACTOR = 8
#: What is drawn of a stage, where it is not the loss.
DRAWN = {Stage.RLVR: "reward"}
#: Of a training's figures: their names, titles, units and what they are multiplied by.
FIGURES = (
    ("tokens_per_second", "Speed", "tokens/s", 1.0),
    ("data_wait_share", "Waiting for data", "% of the time", 100.0),
    ("peak_memory_gib", "Peak memory", "GiB", 1.0),
)
POINTS = 500  # of a drawn curve, at most

Point = tuple[float, float]  # step, loss


class Curve(NamedTuple):
    """What `curves.html.jinja` draws."""

    summary: str  # `4.61 → 0.55 in 600 steps, 1 min 11 s`
    label: str  # the same for those who do not see the curve
    unit: str
    steps: Axis
    losses: Axis
    raw: list[Point]
    smooth: list[Point]

    def places(self, points: list[Point]) -> str:
        """Some of the points, in thousandths of the plot, as an SVG polyline takes them."""
        every = -(-len(points) // POINTS)
        return " ".join(
            f"{1000 * self.steps.share(step):.1f},{1000 * (1 - self.losses.share(loss)):.1f}"
            for step, loss in [*points[:-1:every], points[-1]]
        )


def loss_curve(
    stage: Stage, history: Sequence[Logged], seconds: float | None = None
) -> Curve | None:
    """The curve of one stage; None where it was not logged at two steps or more.

    A stage that learns from rewards has a loss around zero, however well it does: what it earns is
    drawn in its place.

    Args:
        seconds: that the steps took, to be told beside them.
    """
    what = DRAWN.get(stage, "loss")
    raw = _logged(history, what)
    if len(raw) < 2:
        return None
    smooth = moving_mean(raw, round(SMOOTHING * len(raw)) | 1)
    losses = _axis([loss for _, loss in raw])
    unit = "DPO loss (nats)" if STAGES[stage].rows is RowKind.PREFERENCE else "nats a token"
    unit = unit if what == "loss" else what
    took = f"{raw[-1][0]:,.0f} steps" + (f", {_duration(seconds)}" if seconds else "")
    first, last = f"{smooth[0][1]:.3g}", f"{smooth[-1][1]:.3g}"
    return Curve(
        summary=f"{first} → {last} in {took}",
        label=f"{what} of {STAGES[stage].title}: from {first} to {last} in {took}",
        unit=f"{unit}, log scale" if losses.log else unit,
        steps=Axis(0, raw[-1][0]),
        losses=losses,
        raw=raw,
        smooth=smooth,
    )


def figure_curves(history: Sequence[Logged]) -> list[tuple[str, Curve]]:
    """What training gives for its time, each with its title, where two steps or more logged it."""
    found = []
    for name, title, unit, scale in FIGURES:
        raw = [(step, scale * value) for step, value in _logged(history, name)]
        if len(raw) < 2:
            continue
        low, high = min(value for _, value in raw), max(value for _, value in raw)
        summary = f"{raw[-1][1]:,.3g} {unit}" if high < 1000 else f"{raw[-1][1]:,.0f} {unit}"
        curve = Curve(
            summary=f"now {summary}",
            label=f"{title}: now {summary}",
            unit=unit,
            steps=Axis(0, raw[-1][0]),
            losses=Axis(min(0.0, low), high * 1.08 or 1.0),
            raw=raw,
            smooth=moving_mean(raw, round(SMOOTHING * len(raw)) | 1),
        )
        found.append((title, curve))
    return found


def moving_mean(points: Sequence[Point], width: int) -> list[Point]:
    """Mean over `width` (odd) points around each; over fewer at the ends."""
    side, before = width // 2, [0.0]
    for _, value in points:
        before.append(before[-1] + value)
    means: list[Point] = []
    for place, (step, _) in enumerate(points):
        first, end = max(0, place - side), min(len(points), place + side + 1)
        means.append(
            (step, (before[end] - before[first]) / (end - first) if side else points[place][1])
        )
    return means


def _logged(history: Sequence[Logged], name: str) -> list[Point]:
    """The steps at which a figure was logged, each with its value."""
    return [
        (step, value)
        for entry in history
        if (step := entry.get("step")) is not None and (value := entry.get(name)) is not None
    ]


def _axis(losses: list[float]) -> Axis:
    low, high = min(losses), max(losses)
    if low > 0 and high > LOG_FACTOR * low:
        return Axis(low / 1.1, high * 1.1, log=True)
    return Axis(min(0.0, low), high * 1.08 or 1.0)


def _duration(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours} h {minutes} min"
    return f"{minutes} min {rest} s" if minutes else f"{rest} s"
