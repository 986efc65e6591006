"""Batches of a whole run in the order of its plan, from wherever it was interrupted."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

from torch.utils.data import Dataset, Sampler

from siqvl.data.batching import BatchPlan, Key
from siqvl.data.encoded import EncodedDataset, Item, UnreadablePicture
from siqvl.errors import UserError

if TYPE_CHECKING:
    from torch.utils.data import DataLoader

    from siqvl.data.collate import Batch


class PlanSampler(Sampler[list[Key]]):
    """The batches of one device, as a DataLoader's `batch_sampler`.

    Args:
        plan: of the run.
        rank: which of the plan's devices.
        start: batches of this device to leave out.
    """

    drop_last = True  # accelerate asks for it; no batch of a plan is smaller than the others

    def __init__(self, plan: BatchPlan, rank: int = 0, *, start: int = 0) -> None:
        self.plan = plan
        self.rank = rank
        self.start = start
        self.batch_size = plan.batch_size

    def __len__(self) -> int:
        return max(0, self.plan.steps * self.plan.accumulation - self.start)

    def __iter__(self) -> Iterator[list[Key]]:
        for batch in range(self.start, self.start + len(self)):
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


class TrainingLoader:
    """Iterates over the batches of one device that are still to come in the run.

    Args:
        dataset: what the plan was made for.
        collate: a collator that fits the plan; `PackedCollator` for a packed one.
        plan: of the run.
        rank: which of the plan's devices this is.
        workers: processes that decode and collate; batches are the same for any number.
        pin_memory: copy batches to page-locked memory, for faster transfers to a GPU.
        prefetch: batches that each worker prepares ahead.

    Raises, while iterating:
        UnreadablePicture: a picture does not decode; names its row.
    """

    def __init__(
        self,
        dataset: EncodedDataset,
        collate: Callable[[Sequence[Any]], Batch],
        plan: BatchPlan,
        *,
        rank: int = 0,
        workers: int = 0,
        pin_memory: bool = False,
        prefetch: int = 2,
    ) -> None:
        self.dataset = dataset
        self.collate = collate
        self.plan = plan
        self.rank = rank
        self.workers = workers
        self.pin_memory = pin_memory
        self.prefetch = prefetch
        self._yielded = 0

    def __len__(self) -> int:
        """Batches of this device in the whole run."""
        return self.plan.steps * self.plan.accumulation

    def __iter__(self) -> Iterator[Batch]:
        try:
            for batch in self.dataloader():
                self._yielded += 1
                yield batch
        except UnreadablePicture as error:
            # The frames it came through keep the workers alive until a garbage collection, which
            # closes their queues first and then waits for each of them in vain.
            raise error.with_traceback(None) from None

    def dataloader(self) -> DataLoader:
        """The batches still to come as a plain DataLoader, for Hugging Face's Trainer.

        It holds this device's share alone: accelerate must not `prepare` (and divide) it again.
        """
        from torch.utils.data import DataLoader

        return DataLoader(
            PlannedItems(self.dataset),
            batch_sampler=PlanSampler(self.plan, self.rank, start=self._yielded),
            collate_fn=self.collate,
            num_workers=self.workers,
            pin_memory=self.pin_memory,
            prefetch_factor=self.prefetch if self.workers else None,
        )

    def state_dict(self) -> dict[str, Any]:
        """Where the run is: what was handed out counts, what workers prepared ahead does not.

        Counted in sequences of all devices, so that it is the same on each of them, and holds for
        any division of the steps into batches.
        """
        sequences = self._yielded * self.plan.batch_size * self.plan.world
        return {"plan": self.plan.fingerprint(), "sequences": sequences}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on behind the last batch that was handed out when the state was taken.

        Raises:
            UserError: it is the state of another plan, or lies inside of a batch of this one.
        """
        if state["plan"] != self.plan.fingerprint():
            raise UserError(
                "the saved position belongs to another plan of batches: the data, the mixture, the "
                "batching, the seed or the sequences in a step were changed; change them back, or "
                "start the stage anew"
            )
        together = self.plan.batch_size * self.plan.world
        self._yielded, rest = divmod(state["sequences"], together)
        if rest:
            raise UserError(
                f"the saved position, {state['sequences']} sequences, lies inside of a batch of "
                f"{together} sequences; continue with the batch_size and number of devices that "
                "the run was started with"
            )
