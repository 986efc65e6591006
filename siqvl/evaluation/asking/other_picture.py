"""Whose pictures a question is shown with when it is asked about those of another question.

Swapping beats a blank picture as a control: what the model sees is what it was trained on, only not
what the question is about.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Sequence

Pictures = tuple[str, ...]  # `image_hashes` of a row


def other_pictures(ids: Sequence[str], pictures: Sequence[Pictures]) -> list[Pictures]:
    """Finds for every row the pictures of another one, never its own.

    The rows stand on a circle, those with equal pictures side by side, else in an order drawn by
    their ids; each takes the pictures of the row so many places on as the commonest picture has
    rows. That is a permutation: pictures are swapped, and none is shown more often than it was
    (unless one picture belongs to more than half of the rows). Rows are swapped with rows of as
    many pictures where that can be, so that the prompt stays the same. Ids and pictures alone
    decide.

    Raises:
        ValueError: there are pictures, but no other ones.
    """
    found: list[Pictures] = list(pictures)
    for count in sorted({len(own) for own in pictures} - {0}):
        alike = [row for row, own in enumerate(pictures) if len(own) == count]
        if len({pictures[row] for row in alike}) == 1:  # none to swap with among them
            alike = [row for row, own in enumerate(pictures) if own]
        taken = _swapped(alike, ids, pictures)
        for row in alike:
            if len(pictures[row]) == count:
                found[row] = taken[row]
    return found


def _swapped(
    rows: list[int], ids: Sequence[str], pictures: Sequence[Pictures]
) -> dict[int, Pictures]:
    common = Counter(pictures[row] for row in rows)
    if len(common) == 1:
        raise ValueError("every question shows the same picture")
    drawn = {row: hashlib.sha256(ids[row].encode()).hexdigest() for row in rows}
    first: dict[Pictures, str] = {}
    for row in rows:
        own = pictures[row]
        first[own] = min(first.get(own, drawn[row]), drawn[row])
    circle = sorted(rows, key=lambda row: (first[pictures[row]], drawn[row], row))
    most = max(common.values())
    taken: dict[int, Pictures] = {}
    for place, row in enumerate(circle):
        step = most
        while pictures[circle[(place + step) % len(circle)]] == pictures[row]:
            step += 1
        taken[row] = pictures[circle[(place + step) % len(circle)]]
    return taken
