"""Loss curves: what was logged, and a moving mean of it, for every stage."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from siqvl.checkpoint import CheckpointCard, Logged
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


def loss_curve(card: CheckpointCard, history: Sequence[Logged]) -> Curve | None:
    """The curve of one stage; None where it was not logged at two steps or more.

    A stage that learns from rewards has a loss around zero, however well it does: what it earns is
    drawn in its place.
    """
    what = DRAWN.get(card.stage, "loss")
    raw = [
        (step, value)
        for entry in history
        if (step := entry.get("step")) is not None and (value := entry.get(what)) is not None
    ]
    if len(raw) < 2:
        return None
    smooth = moving_mean(raw, round(SMOOTHING * len(raw)) | 1)
    losses = _axis([loss for _, loss in raw])
    unit = "DPO loss (nats)" if STAGES[card.stage].rows is RowKind.PREFERENCE else "nats a token"
    unit = unit if what == "loss" else what
    seconds = card.metrics.get("train_runtime")
    took = f"{raw[-1][0]:,.0f} steps" + (f", {_duration(seconds)}" if seconds else "")
    first, last = f"{smooth[0][1]:.3g}", f"{smooth[-1][1]:.3g}"
    return Curve(
        summary=f"{first} → {last} in {took}",
        label=f"{what} of {STAGES[card.stage].title}: from {first} to {last} in {took}",
        unit=f"{unit}, log scale" if losses.log else unit,
        steps=Axis(0, raw[-1][0]),
        losses=losses,
        raw=raw,
        smooth=smooth,
    )


def moving_mean(points: Sequence[Point], width: int) -> list[Point]:
    """Mean over `width` (odd) points around each; over fewer at the ends."""
    side = width // 2
    means: list[Point] = []
    for place, (step, _) in enumerate(points):
        near = [loss for _, loss in points[max(0, place - side) : place + side + 1]]
        means.append((step, sum(near) / len(near)))
    return means


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
