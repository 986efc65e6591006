"""Rows that repeat one another, and pictures that look alike."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from siqvl.data.preparation.checks import Checked
from siqvl.recipe import LeaveOut

PIXELS = 192  # bytes of a thumbnail: 8 x 8 x RGB
TAIL = 256  # signatures that are compared one by one before they are sorted


@dataclass(frozen=True)
class Run:
    """Signatures sorted by the sum of their first picture's bytes."""

    sums: np.ndarray  # int32 [n]
    coarse: np.ndarray  # int16 [n, 12]: of the first picture, sums of 4 quadrants x RGB
    pixels: np.ndarray  # uint8 [n, pictures, 192]
    labels: list[str]
    order: np.ndarray  # int64 [n], when each was added


class LookAlikes:
    """Finds, among signatures, one that looks like another.

    A signature is the thumbnails of a row's pictures, 192 bytes each. Two look alike when, picture
    by picture, the mean absolute difference of their bytes is at most `near`, that is
    `Σ|a - b| <= 192 near`. No pair within that limit is missed: for any group g of the bytes
    `|Σ_g a - Σ_g b| <= Σ_g |a - b|` (triangle inequality), so the limit also holds for the
    difference of the sums of all bytes, by which a run is sorted and a window of it is cut out by
    bisection, and for the differences of the sums of 12 groups, added up, which thin the window out
    before whole signatures are compared.

    Runs double in size, as in a log-structured merge tree: each signature is sorted O(log n) times.
    """

    __slots__ = ("_added", "_limit", "_runs", "_tail")

    def __init__(self, near: float) -> None:
        self._limit = PIXELS * near
        self._runs: list[Run] = []
        self._tail: list[tuple[bytes, str]] = []
        self._added = 0

    def add(self, signature: bytes, label: str) -> None:
        self._tail.append((signature, label))
        self._added += 1
        if len(self._tail) == TAIL:
            self._push(*zip(*self._tail, strict=True))
            self._tail = []

    def _push(self, signatures: Sequence[bytes], labels: Sequence[str]) -> None:
        pixels = _pixels(signatures)
        first = pixels[:, 0]
        order = np.arange(self._added - len(pixels), self._added)
        sums = first.sum(axis=1, dtype=np.int32)
        self._runs.append(_sorted(Run(sums, _coarse(first), pixels, list(labels), order)))
        while len(self._runs) > 1 and len(self._runs[-2].sums) <= len(self._runs[-1].sums):
            second, first_run = self._runs.pop(), self._runs.pop()
            self._runs.append(_joined(first_run, second))

    def find(self, signature: bytes) -> str | None:
        """The label of the first added signature that looks like this one."""
        pixels = _pixels([signature])[0]
        found = [match for run in self._runs if (match := self._search(run, pixels))]
        if found:
            return min(found)[1]
        if self._tail:  # all younger than the runs
            held = _pixels([one for one, _ in self._tail])
            alike = self._alike(held, pixels).nonzero()[0]
            if len(alike):
                return self._tail[alike[0]][1]
        return None

    def _search(self, run: Run, pixels: np.ndarray) -> tuple[int, str] | None:
        total = int(pixels[0].sum(dtype=np.int64))
        start = np.searchsorted(run.sums, total - self._limit, side="left")
        stop = np.searchsorted(run.sums, total + self._limit, side="right")
        away = np.abs(run.coarse[start:stop] - _coarse(pixels[:1])).sum(axis=1, dtype=np.int32)
        candidates = start + (away <= self._limit).nonzero()[0]
        alike = candidates[self._alike(run.pixels[candidates], pixels)]
        if not len(alike):
            return None
        first = alike[run.order[alike].argmin()]
        return int(run.order[first]), run.labels[first]

    def _alike(self, held: np.ndarray, pixels: np.ndarray) -> np.ndarray:
        """[n, pictures, 192] and [pictures, 192] -> [n], whether each looks alike."""
        away = np.abs(held.astype(np.int16) - pixels).sum(axis=2, dtype=np.int32)
        return (away <= self._limit).all(axis=1)


def _pixels(signatures: Sequence[bytes]) -> np.ndarray:
    joined = np.frombuffer(b"".join(signatures), dtype=np.uint8)
    return joined.reshape(len(signatures), -1, PIXELS)


def _coarse(thumbnails: np.ndarray) -> np.ndarray:
    """[n, 192] -> [n, 12]: each 4 x 4 quadrant of each channel added up (at most 16 x 255)."""
    quadrants = thumbnails.reshape(-1, 2, 4, 2, 4, 3).sum(axis=(2, 4), dtype=np.int16)
    return quadrants.reshape(-1, 12)


def _sorted(run: Run) -> Run:
    by = run.sums.argsort(kind="stable")
    labels = [run.labels[index] for index in by]
    return Run(run.sums[by], run.coarse[by], run.pixels[by], labels, run.order[by])


def _joined(first: Run, second: Run) -> Run:
    return _sorted(
        Run(
            sums=np.concatenate([first.sums, second.sums]),
            coarse=np.concatenate([first.coarse, second.coarse]),
            pixels=np.concatenate([first.pixels, second.pixels]),
            labels=first.labels + second.labels,
            order=np.concatenate([first.order, second.order]),
        )
    )


class Duplicates:
    """Tells rows that repeat an earlier one: the same texts, and the same or similar pictures.

    `exact` compares pictures by their pixels, `near` also by their thumbnails.
    """

    def __init__(self, level: LeaveOut, near: float) -> None:
        self._level, self._near = level, near
        self._contents: set[bytes] = set()
        self._by_texts: dict[tuple[bytes, int], LookAlikes] = {}

    def find(self, checked: Checked) -> tuple[str, str] | None:
        """Reason and detail for which the row is left out; None for one that is new."""
        if self._level == "none":
            return None
        content = bytes.fromhex(checked.content)[:16]
        if content in self._contents:
            return "duplicate", ""
        if self._level == "near" and checked.thumbnails:
            key = bytes.fromhex(checked.texts)[:16], len(checked.thumbnails)
            alike = self._by_texts.get(key)
            if alike is None:
                alike = self._by_texts[key] = LookAlikes(self._near)
            elif (other := alike.find(checked.thumbnails)) is not None:
                return "near duplicate", f"the picture looks like that of {other}"
            alike.add(checked.thumbnails, checked.id)
        self._contents.add(content)
        return None
