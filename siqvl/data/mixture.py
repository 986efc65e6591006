"""Which rows an epoch holds, when they come from several sources.

A source of n rows and weight w counts w * n times in one epoch: with weight 2 every row twice, with
0.5 every other one, with 1.5 all of them once and half of them twice. A temperature T above 1 evens
sources out: their shares become proportional to (w * n)^(1/T), as multilingual models sample
their languages (Arivazhagan et al. 2019, arXiv:1907.05019), while an epoch stays as long as it was.

Each source has one shuffled order, fixed for the run, and every epoch goes on in it where the one
before stopped, round and round. So a row is never drawn twice while another of its source waits:
after any number of epochs the rows of a source have been drawn equally often, give or take one.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import PurePath

import numpy as np

from siqvl.data.encoded import EncodedDataset
from siqvl.recipe import Source


@dataclass(frozen=True)
class Share:
    """How much of a run (or an epoch) came from one source."""

    source: str
    rows: int
    tokens: int

    def __add__(self, other: Share) -> Share:
        return Share(self.source, self.rows + other.rows, self.tokens + other.tokens)


class Mixture:
    """The rows of every epoch.

    Args:
        source_of: for each item the position of its source in `names`.
        lengths: tokens of each item.
        names: the sources; two may share a name.
        weights: times a source's rows count in one epoch; one for each source.
        temperature: 1 leaves shares as they are, more evens them out.
        seed: of every order.

    Attributes:
        rows_per_epoch: rows that a source gives to one epoch, on average over epochs.
    """

    def __init__(
        self,
        source_of: Sequence[int] | np.ndarray,
        lengths: Sequence[int],
        *,
        names: Sequence[str],
        weights: Sequence[float],
        temperature: float = 1.0,
        seed: int = 0,
    ) -> None:
        self.source_of = np.asarray(source_of, np.int64)
        self.lengths = np.asarray(lengths, np.int64)
        self.names = list(names)
        self.seed = seed
        counts = np.bincount(self.source_of, minlength=len(self.names))
        wanted = counts * np.asarray(weights, np.float64)
        tempered = np.where(wanted > 0, wanted ** (1 / temperature), 0.0)
        self.rows_per_epoch: list[float] = (
            wanted if temperature == 1 else wanted.sum() * tempered / tempered.sum()
        ).tolist()
        self._orders = [
            self._shuffled(np.flatnonzero(self.source_of == source), source)
            for source in range(len(self.names))
        ]

    @classmethod
    def of(
        cls,
        encoded: EncodedDataset,
        sources: Sequence[Source],
        rows_of_sources: Sequence[int],
        *,
        temperature: float = 1.0,
        seed: int = 0,
    ) -> Mixture:
        """The mixture of a recipe's sources.

        Args:
            encoded: the rows of prepared data that are trained on.
            sources: those of the recipe in the order of the rows, see `Manifest.in_order`.
            rows_of_sources: the manifest's: prepared rows of each source, which lie one after the
                other.
        """
        ends = np.cumsum(rows_of_sources)
        return cls(
            np.searchsorted(ends, encoded.rows, side="right"),
            encoded.lengths,
            names=[_name(source) for source in sources],
            weights=[source.weight for source in sources],
            temperature=temperature,
            seed=seed,
        )

    def epoch(self, number: int) -> np.ndarray:
        """The items of an epoch in the order in which they are shown, another one every epoch."""
        drawn = []
        for order, rows in zip(self._orders, self.rows_per_epoch, strict=True):
            # halves are rounded up, so that 2.5 rows an epoch come as 3, 2, 3, 2
            first, end = int(rows * number + 0.5), int(rows * (number + 1) + 0.5)
            if len(order):
                drawn.append(order[np.arange(first, end) % len(order)])
        return self._shuffled(np.concatenate(drawn), len(self.names) + number)

    def realised(self, items: np.ndarray) -> list[Share]:
        """What some drawn items (an epoch's, or all of a run) hold of each source."""
        sources = self.source_of[items]
        rows = np.bincount(sources, minlength=len(self.names)).tolist()
        # summed as integers: bincount's weights would be floats
        tokens = np.zeros(len(self.names), np.int64)
        np.add.at(tokens, sources, self.lengths[items])
        return [Share(*share) for share in zip(self.names, rows, tokens.tolist(), strict=True)]

    def _shuffled(self, items: np.ndarray, stream: int) -> np.ndarray:
        return np.random.default_rng([self.seed, stream]).permutation(items)


def _name(source: Source) -> str:
    """`shapes`, or with a path `finevision HuggingFaceM4/FineVision`: characters MLflow takes."""
    path = "/".join(PurePath(source.path or "").parts[-2:])
    return re.sub(r"[^\w ./-]", "", f"{source.kind} {path}").strip()
