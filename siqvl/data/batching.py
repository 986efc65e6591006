"""The plan of a training run: which rows make up every batch, before any data is touched.

A run is one endless stream of sequences over its epochs (`siqvl.data.mixture`), cut into global
batches of one optimizer step each. Epochs run on into one another: what is left of one below a
global batch begins the next, so no batch is smaller than the others and no row is lost.

- packed: a sequence is a pack of rows (`siqvl.data.packing`). Packs are made within windows of
  PACK_WINDOW rows of the shuffled epoch, and shuffled in their window.
- grouped: a sequence is a row; within windows of GROUP_WINDOW global batches rows are sorted by
  length, and the global batches that result are shuffled. A batch that two epochs share is left
  out of that: it comes first, so that no epoch ends late.
- padded: a sequence is a row, in the order of the epoch.

The rows of a step depend on how many sequences it has, not on how these are divided into batches,
accumulation and devices: a run may go on with another division.
"""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import pairwise
from typing import Literal

import numpy as np

from siqvl.data.encoded import EncodedDataset
from siqvl.data.mixture import Mixture, Share
from siqvl.data.packing import best_fit
from siqvl.recipe import SFTStage

Batching = Literal["packed", "grouped", "padded"]
#: What a batch holds for each sequence: an item, or in a packed plan the items of a pack.
Key = int | tuple[int, ...]

PACK_WINDOW = 16_384  # rows
GROUP_WINDOW = 50  # global batches
REMEMBERED = 20_000_000  # rows of epochs that are kept (16 bytes each) instead of planned again


def items_of(keys: Iterable[Key]) -> list[int]:
    """The items that a batch's keys stand for, those of a pack one after another."""
    return [item for key in keys for item in ((key,) if isinstance(key, int) else key)]


@dataclass(frozen=True)
class Sequences:
    """Sequences of one or more items each, back to back; sequence i is items[ends[i]:ends[i+1]]."""

    items: np.ndarray
    ends: np.ndarray  # one more than there are sequences, from 0

    def __len__(self) -> int:
        return len(self.ends) - 1

    @classmethod
    def of_sizes(cls, items: np.ndarray, sizes: np.ndarray) -> Sequences:
        return cls(items, np.concatenate([[0], np.cumsum(sizes)]).astype(np.int64))

    def __add__(self, other: Sequences) -> Sequences:
        return Sequences(
            np.concatenate([self.items, other.items]),
            np.concatenate([self.ends, self.ends[-1] + other.ends[1:]]),
        )

    def part(self, first: int, end: int) -> Sequences:
        """Sequences `first` up to `end`; a copy, which does not keep the others in memory."""
        ends = self.ends[first : end + 1]
        return Sequences(self.items[ends[0] : ends[-1]].copy(), ends - ends[0])


@dataclass(frozen=True)
class Block:
    """The whole global batches of an epoch, begun by what was left of the epoch before."""

    first_step: int
    steps: int
    sequences: Sequences


class BatchPlan:
    """The batches of a run, planned an epoch at a time when they are asked for.

    Args:
        mixture: the rows of every epoch.
        images: images of each item.
        batching: how rows become sequences.
        batch_size: sequences in one batch of one device.
        accumulation: batches of a device in one optimizer step.
        world: devices.
        steps: optimizer steps of the run; or
        epochs: passes over the mixture, see `steps_for`.
        pack_length: tokens that a packed sequence may have.
        pack_images: images that a packed sequence may have; None for any number.

    Raises:
        ValueError: not exactly one of `steps` and `epochs`, or packing without its length.
    """

    def __init__(
        self,
        mixture: Mixture,
        images: list[int],
        *,
        batching: Batching,
        batch_size: int,
        accumulation: int = 1,
        world: int = 1,
        steps: int | None = None,
        epochs: float | None = None,
        pack_length: int | None = None,
        pack_images: int | None = None,
    ) -> None:
        if (steps is None) == (epochs is None):
            raise ValueError("a plan needs exactly one of `steps` and `epochs`")
        if batching == "packed" and pack_length is None:
            raise ValueError("a packed plan needs `pack_length`")
        self.mixture = mixture
        self.batching = batching
        self.batch_size = batch_size
        self.accumulation = accumulation
        self.world = world
        self.pack_length = pack_length
        self.pack_images = pack_images
        self._images = np.asarray(images, np.int64)
        nothing = np.zeros(0, np.int64)
        self._starts = [0]  # first step of each epoch's block, as far as it is planned
        self._rests = [Sequences.of_sizes(nothing, nothing)]  # what each block begins with
        self._blocks: dict[int, Block] = {}
        self._epochs: dict[int, Sequences] = {}
        self.steps: int = steps or self.steps_for(epochs or 0)

    @classmethod
    def of(
        cls, stage: SFTStage, encoded: EncodedDataset, mixture: Mixture, *, world: int = 1
    ) -> BatchPlan:
        """The plan that a stage's recipe asks for."""
        return cls(
            mixture,
            encoded.num_images,
            batching=stage.batching,
            batch_size=stage.batch_size,
            accumulation=stage.accumulation,
            world=world,
            steps=stage.max_steps,
            epochs=stage.epochs,
            pack_length=stage.pack_length or stage.max_length,
            pack_images=stage.pack_images,
        )

    @property
    def sequences_per_step(self) -> int:
        """The size of a global batch."""
        return self.batch_size * self.accumulation * self.world

    def batch(self, step: int, micro: int = 0, rank: int = 0) -> list[Key]:
        """One batch of one device: the `micro`-th of an optimizer step.

        Raises:
            IndexError: the run, the step or the world has no such step, batch or rank.
        """
        for name, value, limit in (
            ("step", step, self.steps),
            ("micro", micro, self.accumulation),
            ("rank", rank, self.world),
        ):
            if not 0 <= value < limit:
                raise IndexError(f"{name} {value} of {limit}")
        block = self._block(self.epoch_of(step))
        # all devices take neighbouring sequences, which have like lengths when they are grouped
        first = (step - block.first_step) * self.sequences_per_step
        first += (micro * self.world + rank) * self.batch_size
        part = block.sequences.part(first, first + self.batch_size)
        items = part.items.tolist()
        if self.batching != "packed":
            return items
        ends = part.ends.tolist()
        return [tuple(items[a:b]) for a, b in pairwise(ends)]

    def epoch_of(self, step: int) -> int:
        """The epoch of a step; one that spans two belongs to the later."""
        while self._starts[-1] <= step:
            self._block(len(self._starts) - 1)
        return bisect_right(self._starts, step) - 1

    def steps_for(self, epochs: float) -> int:
        """Steps in which a number of epochs is shown to the end: the last step is filled up."""
        whole = int(epochs)
        sequences: float = sum(len(self._epoch(number)) for number in range(whole))
        if epochs > whole:
            sequences += (epochs - whole) * len(self._epoch(whole))
        # without the tiny excess of a product such as 0.1 * 30
        return max(1, math.ceil(round(sequences, 6) / self.sequences_per_step))

    def realised(self, first: int = 0, end: int | None = None) -> list[Share]:
        """Rows and tokens of each source in steps `first` up to `end`; of the whole run if bare."""
        shares = [self.mixture.realised(part.items) for part in self._parts(first, end)]
        return [sum(of_source[1:], of_source[0]) for of_source in zip(*shares, strict=True)]

    def items(self, first: int = 0, end: int | None = None) -> Iterator[np.ndarray]:
        """The rows of steps `first` up to `end` in their order, all devices', epoch by epoch."""
        return (part.items for part in self._parts(first, end))

    def padding_share(self, first: int = 0, end: int | None = None) -> float:
        """The share of all positions in some steps' batches that hold no token."""
        tokens = positions = 0
        for part in self._parts(first, end):
            lengths = np.add.reduceat(self.mixture.lengths[part.items], part.ends[:-1])
            tokens += int(lengths.sum())
            widths = lengths.reshape(-1, self.batch_size).max(axis=1)
            positions += int(widths.sum()) * self.batch_size
        return 1 - tokens / positions

    def _parts(self, first: int, end: int | None) -> Iterator[Sequences]:
        """The sequences of some steps, epoch by epoch."""
        end = self.steps if end is None else end
        while first < end:
            block = self._block(self.epoch_of(first))
            last = min(end, block.first_step + block.steps)
            yield block.sequences.part(
                (first - block.first_step) * self.sequences_per_step,
                (last - block.first_step) * self.sequences_per_step,
            )
            first = last

    def _block(self, epoch: int) -> Block:
        if epoch not in self._blocks:
            sequences = self._rests[epoch] + self._epoch(epoch)
            steps = len(sequences) // self.sequences_per_step
            whole = steps * self.sequences_per_step
            if epoch + 1 == len(self._starts):
                self._starts.append(self._starts[epoch] + steps)
                self._rests.append(sequences.part(whole, len(sequences)))
            sequences = sequences.part(0, whole)
            if self.batching == "grouped":
                first = self.sequences_per_step if len(self._rests[epoch]) else 0
                sequences = self._grouped(sequences, epoch, first)
            self._blocks = dict([*self._blocks.items()][-1:])  # a run goes through them in order
            self._blocks[epoch] = Block(self._starts[epoch], steps, sequences)
        return self._blocks[epoch]

    def _epoch(self, number: int) -> Sequences:
        if number not in self._epochs:
            items = self.mixture.epoch(number)
            if self.batching == "packed":
                sequences = self._packed(items, number)
            else:
                sequences = Sequences(items, np.arange(len(items) + 1))
            while sum(len(one.items) for one in self._epochs.values()) > REMEMBERED:
                del self._epochs[next(iter(self._epochs))]
            self._epochs[number] = sequences
        return self._epochs[number]

    def _packed(self, items: np.ndarray, epoch: int) -> Sequences:
        assert self.pack_length is not None
        packed, sizes = [items[:0]], [items[:0]]
        windows = np.array_split(items, math.ceil(len(items) / PACK_WINDOW) or 1)
        for number, window in enumerate(windows):
            packs = best_fit(
                self.mixture.lengths[window].tolist(),
                self._images[window].tolist(),
                max_tokens=self.pack_length,
                max_images=self.pack_images,
            )
            rng = np.random.default_rng([self.mixture.seed, epoch, number])
            order = rng.permutation(len(packs))
            packed += [window[packs[pack]] for pack in order]
            sizes.append(np.array([len(packs[pack]) for pack in order], np.int64))
        return Sequences.of_sizes(np.concatenate(packed), np.concatenate(sizes))

    def _grouped(self, sequences: Sequences, epoch: int, first: int) -> Sequences:
        """The first sequences stay first: they complete the epoch before."""
        rng = np.random.default_rng([self.mixture.seed, epoch])
        size = GROUP_WINDOW * self.sequences_per_step
        starts = sorted({0, *range(first, len(sequences), size)})
        batches = [sequences.items[:0]]
        for start, end in pairwise([*starts, len(sequences)]):
            window = sequences.items[start:end]
            ordered = window[np.argsort(self.mixture.lengths[window], kind="stable")]
            batches.append(rng.permutation(ordered.reshape(-1, self.sequences_per_step)).ravel())
        return Sequences(np.concatenate(batches), sequences.ends)
