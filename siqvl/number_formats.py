"""How shares and differences of shares are written, in tables of a terminal and on pages."""

from __future__ import annotations


def percent(share: float | None) -> str:
    """`42.0 %`, or a dash where there is none."""
    return "–" if share is None else f"{100 * share:.1f} %"


def points(share: float, places: int = 1) -> str:
    """A difference of shares as signed percentage points: `+47.1`, `−0.3`."""
    return f"{round(100 * share, places) + 0.0:+.{places}f}".replace("-", "−")


def span(interval: tuple[float, float]) -> str:
    """`+44.8 … +49.3`."""
    return f"{points(interval[0])} … {points(interval[1])}"


def bound_points(share: float) -> str:
    """A bound in percentage points, as few digits as it has: `0`, `−1`, `+2.5`."""
    return f"{100 * share:+.4g}".replace("-", "−") if share else "0"
