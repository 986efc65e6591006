"""What training gives for its time: tokens, waiting, padding, MFU, memory, the loss of each source.

Which rows a step has is known from the plan, so nothing is measured in batches, and counts of a
resumed run are those of one that was never interrupted.
"""

from __future__ import annotations

import re
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch
import torch.distributed as dist
from transformers import TrainerCallback, TrainerState

from siqvl.data.batching import BatchPlan, Key, items_of
from siqvl.data.loader import TrainingLoader
from siqvl.device import precision_of
from siqvl.model.configuration import SiQVLConfig
from siqvl.recipe import Recipe, SFTStage
from siqvl.training.figures.flops import TrainingFlops
from siqvl.training.figures.peak_flops import peak_flops
from siqvl.training.figures.work import ItemWork, Work

GIB = 2**30
#: Batches whose losses wait to be shared out to the sources, together.
PENDING = 64

Batch = TypeVar("Batch")


class Telemetry(TrainerCallback):
    """Figures between two logs of a run; of all processes together, unless said otherwise.

    Args:
        plan: of the run.
        items: sizes of the rows that the plan was made for.
        flops: what training costs; without it, or `peak_flops`, there is no MFU.
        peak_flops: of one device, operations a second.
        one_row: batches are laid into a single row, without padding.
        clock: seconds.

    Attributes:
        waited: seconds that this process has waited for batches since the last figures.
        losses: of the sources, to be told those of every batch.
    """

    def __init__(
        self,
        plan: BatchPlan,
        items: ItemWork,
        flops: TrainingFlops | None = None,
        peak_flops: float | None = None,
        *,
        one_row: bool = False,
        clock: Callable[[], float] = time.perf_counter,
    ) -> None:
        self.plan = plan
        self.items = items
        self.flops = flops
        self.peak_flops = peak_flops
        self._one_row = one_row
        self._clock = clock
        self.losses = SourceLosses(plan, items)
        self._seen = (0, 0, 0)  # tokens and images before a step: step, tokens, images
        self.begin(0)

    @classmethod
    def of(
        cls,
        loader: TrainingLoader,
        config: SiQVLConfig,
        stage: SFTStage,
        recipe: Recipe,
        *,
        adapter_weights: int = 0,
    ) -> Telemetry:
        """Make the telemetry of a stage on this machine.

        Args:
            adapter_weights: how many there are, if the stage has an adapter.

        Raises:
            UserError: the stage's precision is not to be had here.
        """
        collate = loader.collate
        return cls(
            loader.plan,
            ItemWork(
                loader.dataset,
                shared_prompt=getattr(collate, "shared_prompt", False),
                chosen_alone=getattr(collate, "chosen_alone", False),
            ),
            TrainingFlops(
                config,
                stage.trainable,
                cached_features=stage.cached_features,
                adapter_weights=adapter_weights,
            ),
            peak_flops(recipe, precision_of(stage)),
            one_row=getattr(collate, "one_row", False),
        )

    def begin(self, step: int) -> None:
        """Training starts, or goes on, behind `step` optimizer steps; figures count from here."""
        self._step = step
        self._time = self._clock()
        self.waited = 0.0

    def on_train_begin(self, args: Any, state: TrainerState, control: Any, **kwargs: Any) -> None:
        """Count from where Hugging Face's trainer starts, or resumes."""
        self.begin(state.global_step)

    def leave_out(self, seconds: float) -> None:
        """Leave so many seconds, spent on something else, out of the speed."""
        self._time += seconds

    def timed(self, batches: Iterator[Batch]) -> Iterator[Batch]:
        """Hand batches on, and add up how long each was waited for."""
        while True:
            start = self._clock()
            try:
                batch = next(batches)
            except StopIteration:
                return
            finally:
                self.waited += self._clock() - start
            yield batch

    def figures(self, step: int) -> dict[str, float]:
        """What happened since the last call; every process has to ask, at the same step.

        The losses are means over tokens since then, in nats. Peak memory, that of the process
        which has most, is the run's so far. `tokens_seen` and `images_seen` count from the start
        of the stage.

        Args:
            step: optimizer steps that are done.
        """
        if step <= self._step:
            return {}
        now = self._clock()
        seconds = max(now - self._time, 1e-9)
        waited = self.waited
        first = self._step
        self._step, self._time, self.waited = step, now, 0.0
        work, samples = self._work(first, step)
        waiting, memory = _largest(waited / seconds, peak_memory() / GIB)
        tokens, images = self._seen_before(first)
        self._seen = (step, tokens + work.tokens, images + work.images)
        figures = {
            "tokens_per_second": work.tokens / seconds,
            "images_per_second": work.images / seconds,
            "samples_per_second": samples / seconds,
            "data_wait_share": waiting,
            "padding_share": 0.0 if self._one_row else self.plan.padding_share(first, step),
            "peak_memory_gib": memory,
            "tokens_seen": float(self._seen[1]),
            "images_seen": float(self._seen[2]),
        }
        if self.flops is not None and self.peak_flops is not None:
            most = seconds * self.peak_flops * self.plan.world
            figures["mfu"] = self.flops.of(work) / most
        return figures | self.losses.means()

    def _work(self, first: int, end: int) -> tuple[Work[int], int]:
        """The work of some steps, and their samples."""
        work, samples = Work(0, 0, 0, 0), 0
        for items in self.plan.items(first, end):
            work += self.items.total(items)
            samples += len(items)
        return work, samples

    def _seen_before(self, step: int) -> tuple[int, int]:
        """Tokens and images of all steps before one; asked in order, little is counted twice."""
        start, tokens, images = self._seen if self._seen[0] <= step else (0, 0, 0)
        work, _ = self._work(start, step)
        return tokens + work.tokens, images + work.images


class SourceLosses:
    """Mean loss of each source's tokens since it was last asked for."""

    def __init__(self, plan: BatchPlan, items: ItemWork) -> None:
        self._mixture = plan.mixture
        self._world = plan.world
        self._learned = items.losses
        self._waiting: list[tuple[np.ndarray, torch.Tensor]] = []
        self._sums: torch.Tensor | None = None  # [sources, 2]: losses and tokens
        self._earlier: list[list[float]] | None = None  # those of the process before

    def add(self, keys: Sequence[Key], nll: torch.Tensor) -> None:
        """The losses of a batch of this process.

        Args:
            keys: of the batch, as `BatchPlan.batch` gives them.
            nll: [labelled tokens], negative log-likelihoods in reading order, on their device,
                which is not waited for; of the chosen side alone if the rows are pairs.

        Raises:
            ValueError: the rows have another number of labelled tokens.
        """
        items = np.asarray(items_of(keys), np.int64)
        tokens = int(self._learned[items].sum())
        if nll.shape != (tokens,):
            raise ValueError(
                f"the losses of a batch have shape {list(nll.shape)}, but its rows have {tokens} "
                "labelled tokens"
            )
        self._waiting.append((items, nll.detach()))
        if len(self._waiting) >= PENDING:
            self._share_out()

    def state(self) -> list[list[float]] | None:
        """What a resumed run needs, so that no loss is missing from its next figures; for JSON."""
        self._share_out()
        return self._earlier if self._sums is None else self._sums.tolist()

    def load_state(self, state: list[list[float]] | None) -> None:
        """Take up what `state` gave, in the same process of the run."""
        self._waiting, self._sums, self._earlier = [], None, state

    def means(self) -> dict[str, float]:
        """`loss/source {number} {name}` of every source with a token in the meantime."""
        self._share_out()
        if self._sums is None:
            return {}
        sums, self._sums = self._sums, None
        if self._world > 1 and dist.is_initialized():
            dist.all_reduce(sums)
        return {
            f"loss/source {number} {name}": loss / tokens
            for number, (name, (loss, tokens)) in enumerate(
                zip(self._mixture.names, sums.tolist(), strict=True)
            )
            if tokens
        }

    def _share_out(self) -> None:
        """Add what waits to the sums, on the device of the losses and without waiting for it."""
        if not self._waiting:
            return
        items = np.concatenate([rows for rows, _ in self._waiting])
        losses = torch.cat([nll for _, nll in self._waiting])
        self._waiting = []
        # Apple's GPUs have no float64
        losses = losses.to(torch.float32 if losses.device.type == "mps" else torch.float64)
        sources = np.repeat(self._mixture.source_of[items], self._learned[items])
        index = torch.from_numpy(sources).to(losses.device, non_blocking=True)
        if self._sums is None:
            self._sums = losses.new_zeros(len(self._mixture.names), 2)
            if self._earlier is not None:
                self._sums += self._sums.new_tensor(self._earlier)
                self._earlier = None
        self._sums.index_add_(0, index, torch.stack([losses, torch.ones_like(losses)], dim=1))


def peak_memory() -> int:
    """Most bytes that this process has held so far: on its GPU if it has one, else resident."""
    if torch.cuda.is_available():
        return torch.cuda.max_memory_allocated()
    return peak_resident()


def peak_resident() -> int:
    """Most bytes of memory that this process has held so far, its GPU's not among them."""
    status = Path("/proc/self/status")
    if status.exists():  # ru_maxrss would also be that of the program that started this one
        found = re.search(r"^VmHWM:\s+(\d+) kB", status.read_text(), re.MULTILINE)
        if found:
            return int(found[1]) * 1024
    import resource  # not on Windows

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def _largest(*values: float) -> list[float]:
    """The largest of each value over all processes."""
    if not (dist.is_initialized() and dist.get_world_size() > 1):
        return list(values)
    device = "cuda" if dist.get_backend() == "nccl" else "cpu"
    together = torch.tensor(values, dtype=torch.float64, device=device)
    dist.all_reduce(together, op=dist.ReduceOp.MAX)
    return together.tolist()
