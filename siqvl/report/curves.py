"""Loss curves: what was logged, and a moving mean of it, for every stage."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

from siqvl.checkpoint import CheckpointCard, Logged
from siqvl.data.schema import RowKind
from siqvl.page.axis import Axis
from siqvl.stages import STAGES

#: The moving mean covers this share of the steps.
SMOOTHING = 0.06
#: Losses that fall by more than this factor are drawn on a logarithmic axis.
LOG_FACTOR = 8
POINTS = 500  # of a drawn curve, at most
HEIGHT, TOP = 190, 24  # of the plot and of what is above it, in pixels
TICKS = 5

Point = tuple[float, float]  # step, loss


def loss_curve(card: CheckpointCard, history: Sequence[Logged]) -> str:
    """The figure of one stage."""
    title = STAGES[card.stage].title
    raw = [
        (step, loss)
        for entry in history
        if (step := entry.get("step")) is not None and (loss := entry.get("loss")) is not None
    ]
    if len(raw) < 2:
        return (
            f"<figure class=card><h3>{escape(title)}</h3><p class=note>Its checkpoint keeps no "
            "loss of two steps or more.</p></figure>"
        )
    smooth = moving_mean(raw, round(SMOOTHING * len(raw)) | 1)
    unit = "DPO loss (nats)" if STAGES[card.stage].rows is RowKind.PREFERENCE else "nats a token"
    seconds = card.metrics.get("train_runtime")
    took = f", {_duration(seconds)}" if seconds else ""
    steps = f"{raw[-1][0]:,.0f} steps{took}"
    label = f"loss of {title}: from {smooth[0][1]:.3g} to {smooth[-1][1]:.3g} in {steps}"
    return (
        f"<figure class=card><header><h3>{escape(title)}</h3><p class=small>"
        f"{smooth[0][1]:.3g} → {smooth[-1][1]:.3g} in {steps}</p></header>"
        f"{_plot(raw, smooth, unit, label)}</figure>"
    )


def moving_mean(points: Sequence[Point], width: int) -> list[Point]:
    """Mean over `width` (odd) points around each; over fewer at the ends."""
    side = width // 2
    means: list[Point] = []
    for place, (step, _) in enumerate(points):
        near = [loss for _, loss in points[max(0, place - side) : place + side + 1]]
        means.append((step, sum(near) / len(near)))
    return means


def _plot(raw: list[Point], smooth: list[Point], unit: str, label: str) -> str:
    losses = [loss for _, loss in raw]
    low, high = min(losses), max(losses)
    log = low > 0 and high > LOG_FACTOR * low
    x = Axis(0, raw[-1][0])
    y = Axis(low / 1.1, high * 1.1, log=True) if log else Axis(min(0.0, low), high * 1.08 or 1.0)
    unit += ", log scale" if log else ""
    return (
        f'<div class=plot role=img aria-label="{escape(label)}"><svg class=losses>'
        f"{_losses(y)}</svg><svg class=curve>{_grid(x, y)}"
        f'<svg y={TOP} width="100%" height={HEIGHT} viewBox="0 0 1000 1000" '
        f"preserveAspectRatio=none>{_line('raw', raw, x, y)}{_line('smooth', smooth, x, y)}</svg>"
        f'{_steps(x)}<text x="0" y=10>{escape(unit)}</text>'
        f'<text x="100%" y={TOP + HEIGHT + 36} text-anchor=end>optimizer step</text></svg></div>'
    )


def _line(name: str, points: list[Point], x: Axis, y: Axis) -> str:
    every = -(-len(points) // POINTS)
    kept = [*points[:-1:every], points[-1]]
    places = " ".join(
        f"{1000 * x.share(step):.1f},{1000 * (1 - y.share(loss)):.1f}" for step, loss in kept
    )
    return f'<polyline class={name} points="{places}" vector-effect=non-scaling-stroke />'


def _place(y: Axis, value: float) -> str:
    return f"{TOP + HEIGHT * (1 - y.share(value)):.1f}"


def _grid(x: Axis, y: Axis) -> str:
    rows = "".join(
        f'<line class=grid x1="0" x2="100%" y1={place} y2={place} />'
        for place in (_place(y, tick) for tick in y.ticks(TICKS))
    )
    foot = TOP + HEIGHT
    columns = "".join(
        f'<line class=tick x1="{x.percent(tick)}" x2="{x.percent(tick)}" y1={foot} y2={foot + 5} />'
        for tick in x.ticks(TICKS)
    )
    return f'{rows}{columns}<line class=base x1="0" x2="100%" y1={foot} y2={foot} />'


def _losses(y: Axis) -> str:
    """The numbers at the left of the plot."""
    return "".join(
        f'<text x="100%" y={_place(y, tick)} dy=".35em" text-anchor=end>{tick:.4g}</text>'
        for tick in y.ticks(TICKS)
    )


def _steps(x: Axis) -> str:
    """The numbers below it; the outermost do not stand out."""
    anchors = {0.0: "start", 1.0: "end"}
    return "".join(
        f'<text x="{x.percent(tick)}" y={TOP + HEIGHT + 19} '
        f"text-anchor={anchors.get(round(x.share(tick), 1), 'middle')}>{tick:,.0f}</text>"
        for tick in x.ticks(TICKS)
    )


def _duration(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours} h {minutes} min"
    return f"{minutes} min {rest} s" if minutes else f"{rest} s"
