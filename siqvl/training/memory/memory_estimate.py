"""What a training process takes on its device, part by part, and in words."""

from __future__ import annotations

from dataclasses import dataclass, field

from siqvl.training.memory.batch_shape import BatchShape

GIB = 2**30
#: Share of a device that tensors can take: the rest is CUDA's own, or lost between them.
USABLE = 0.92


@dataclass(frozen=True)
class MemoryEstimate:
    """Bytes of one training process.

    Attributes:
        shape: the batch.
        packed: its rows are packs.
        checkpointed: activations are computed again instead of kept.
        weights: of the whole model, and its buffers.
        gradients: of the parts that learn.
        optimizer: AdamW's states.
        mean: the running mean of the weights, if one is kept.
        buckets: copies of gradients that are sent to other processes.
        lines: what a batch takes beside these after each operation of a step, as bytes for no row
            and for each row more. The peak is the highest line.
        full_lines: the same with as many learned tokens as logits are made of at once.
        capacity: of the device; None if it is not known.
        device: what it is called.
    """

    shape: BatchShape
    packed: bool
    checkpointed: bool
    weights: int
    gradients: int
    optimizer: int
    mean: int
    buckets: int
    lines: list[tuple[float, float]] = field(repr=False)
    full_lines: list[tuple[float, float]] = field(repr=False)
    capacity: int | None
    device: str

    @property
    def fixed(self) -> int:
        """What there is whatever the batch."""
        return self.weights + self.gradients + self.optimizer + self.mean + self.buckets

    @property
    def batch(self) -> int:
        """What the batch takes at its peak: activations, copies of weights, logits, buffers."""
        rows = self.shape.rows
        return max(0, int(max(least + each * rows for least, each in self.lines)))

    @property
    def total(self) -> int:
        return self.fixed + self.batch

    @property
    def rows_that_fit(self) -> int | None:
        """The most rows of this kind in one batch; None if the device's memory is not known."""
        if self.capacity is None:
            return None
        room = self.capacity * USABLE - self.fixed
        lines = self.full_lines if self.total <= self.capacity else self.lines
        most = min(((room - least) / each for least, each in lines if each > 0), default=0)
        over = any(least > room for least, each in lines if each <= 0)
        return 0 if over else max(0, int(most))

    def line(self) -> str:
        """For the log of a run."""
        rows = f"{self.shape.rows:,} {self._rows(self.shape.rows)} of {self.shape.width:,} tokens"
        said = (
            f"a batch of {rows} takes {_gib(self.batch)} GiB over {_gib(self.fixed)} GiB for "
            f"weights and optimizer: {_gib(self.total)}"
        )
        if self.capacity is None:
            return f"{said} GiB"
        fit = self.rows_that_fit or 0
        most = f"about {fit:,} {self._rows(fit)} would fit" if fit else "not one would fit"
        return f"{said} of {_gib(self.capacity)} GiB {self.device}; {most}"

    def warning(self) -> str | None:
        """What to change when training is bound to run out of memory; None when it is not."""
        if self.capacity is None or self.total <= self.capacity:
            return None
        lower = "batch_size, pack_length" if self.packed else "batch_size, max_length"
        keep = "" if self.checkpointed else ", or set gradient_checkpointing: true"
        return (
            f"training will probably run out of memory: {self.line()}; lower {lower} or "
            f"head_chunk{keep} (raise accumulation to keep as many rows a step)"
        )

    def _rows(self, count: int) -> str:
        return ("pack" if self.packed else "row") + ("" if count == 1 else "s")


def _gib(size: float) -> str:
    gib = size / GIB
    return f"{gib:,.0f}" if gib >= 20 else f"{gib:.1f}" if gib >= 0.95 else f"{gib:.2f}"
