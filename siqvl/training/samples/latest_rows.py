"""Which of a stage's rows training comes to last."""

from __future__ import annotations

import numpy as np

from siqvl.data.batching import BatchPlan

#: Rows are spread over this share of a source's, those that training comes to last.
LATEST = 0.1


def latest_rows(plan: BatchPlan, rows: int, count: int) -> list[int]:
    """Picks `count` rows that training sees late or never, evenly spread, of every source as many.

    What the model says to a row it has not been trained on yet tells more. By their place alone,
    so the same plan has the same samples.
    """
    first = _first_places(plan, rows)
    source_of = plan.mixture.source_of
    sources = [np.flatnonzero(source_of == one) for one in np.unique(source_of)]
    count = min(count, rows)
    picked: list[int] = []
    for number, own in enumerate(sources):
        wanted = count * (number + 1) // len(sources) - count * number // len(sources)
        latest = own[np.argsort(first[own], kind="stable")]
        latest = np.sort(latest[-max(wanted, round(LATEST * len(own))) :])
        places = (2 * np.arange(wanted) + 1) * len(latest) // (2 * max(wanted, 1))
        picked += latest[np.unique(places)].tolist()
    return picked


def _first_places(plan: BatchPlan, rows: int) -> np.ndarray:
    """[rows]: how many others training sees before it; for one it never sees, more than any."""
    never = np.iinfo(np.int64).max
    first: np.ndarray = np.full(rows, never)
    before = 0
    for part in plan.items():
        items, places = np.unique(part, return_index=True)
        new = first[items] == never
        first[items[new]] = before + places[new]
        before += len(part)
        if (first != never).all():
            break
    return first
