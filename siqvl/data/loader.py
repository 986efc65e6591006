"""Batches of a whole run in the order of its plan."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import KW_ONLY, dataclass
from typing import Any

from torch.utils.data import DataLoader, Dataset, Sampler

from siqvl.data.batching import BatchPlan, Key
from siqvl.data.collate import Batch
from siqvl.data.encoded import EncodedDataset, Item


class PlanSampler(Sampler[list[Key]]):
    """The batches of one device, number `rank` of the plan's, as a DataLoader's `batch_sampler`."""

    drop_last = True  # accelerate asks for it; no batch of a plan is smaller than the others

    def __init__(self, plan: BatchPlan, rank: int = 0) -> None:
        self.plan = plan
        self.rank = rank
        self.batch_size = plan.batch_size

    def __len__(self) -> int:
        return self.plan.steps * self.plan.accumulation

    def __iter__(self) -> Iterator[list[Key]]:
        for batch in range(len(self)):
            yield self.plan.batch(*divmod(batch, self.plan.accumulation), self.rank)


class PlannedItems(Dataset):
    """What the keys of a plan stand for: an item, or for a pack the list of its items."""

    def __init__(self, dataset: EncodedDataset) -> None:
        self.dataset = dataset

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, key: Key) -> Item | list[Item]:
        if isinstance(key, int):
            return self.dataset[key]
        return [self.dataset[index] for index in key]


@dataclass
class TrainingLoader:
    """The batches of one device in a run.

    Args:
        dataset: what the plan was made for.
        collate: a collator that fits the plan; `PackedCollator` for a packed one.
        plan: of the run.
        rank: which of the plan's devices this is.
        workers: processes that decode and collate; batches are the same for any number.
        pin_memory: copy batches to page-locked memory, for faster transfers to a GPU.
        prefetch: batches that each worker prepares ahead.
    """

    dataset: EncodedDataset
    collate: Callable[[Sequence[Any]], Batch]
    plan: BatchPlan
    _: KW_ONLY
    rank: int = 0
    workers: int = 0
    pin_memory: bool = False
    prefetch: int = 2

    def dataloader(self) -> DataLoader:
        """Makes a plain DataLoader of all batches, for Hugging Face's Trainer.

        It holds this device's share alone: accelerate must not `prepare` (and divide) it again.

        Raises, while iterating:
            UnreadablePicture: a picture does not decode; names its row.
        """
        return DataLoader(
            PlannedItems(self.dataset),
            batch_sampler=PlanSampler(self.plan, self.rank),
            collate_fn=self.collate,
            num_workers=self.workers,
            pin_memory=self.pin_memory,
            prefetch_factor=self.prefetch if self.workers else None,
        )
