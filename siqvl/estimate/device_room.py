"""The device that a recipe is estimated for: its memory, its peak, what it computes in."""

from __future__ import annotations

from dataclasses import dataclass

from siqvl.estimate.gpus import gpu_named
from siqvl.recipe import Recipe, SFTStage


@dataclass(frozen=True)
class Room:
    """A device.

    Attributes:
        name: as a table shows it.
        capacity: bytes of memory; None: not known.
        on_gpu: it is a GPU.
        bf16: it computes in bfloat16; None: nobody knows which GPU it will be, and most do.
        device: torch's name of the GPU, if it is known.
    """

    name: str
    capacity: int | None
    on_gpu: bool
    bf16: bool | None
    device: str | None = None

    @property
    def usable(self) -> int | None:
        """Bytes that tensors can take."""
        from siqvl.training.memory.memory_estimate import USABLE

        return None if self.capacity is None else int(self.capacity * USABLE)

    def precision(self, stage: SFTStage) -> str:
        """What a stage computes in there: fp32, bf16 or fp16."""
        if stage.precision != "auto":
            return stage.precision
        return "fp32" if self.bf16 is False else "bf16"

    def peak_flops(self, recipe: Recipe, precision: str) -> float | None:
        """Operations a second at best, see `siqvl.training.figures.peak_flops`."""
        from siqvl.training.figures.peak_flops import peak_of

        return peak_of(self.device, recipe, precision)


def room_for(recipe: Recipe, gpu: str | None) -> Room:
    """The GPU that is named, or this machine; neither for a recipe of GPUs where there is none.

    Raises:
        UserError: no GPU of that name is known.
    """
    import torch

    from siqvl.device import device_memory, has_bf16

    if gpu is not None:
        found = gpu_named(gpu)
        return Room(gpu.lower(), found.bytes, True, found.bf16, found.device)
    if torch.cuda.is_available():
        name = torch.cuda.get_device_name()
        return Room(name, device_memory(), True, has_bf16(), name)
    if recipe.compute.training.gpus:
        return Room("a GPU, not named", None, True, None)
    return Room("this machine's RAM", device_memory(), False, has_bf16())


def attention_there(recipe: Recipe) -> str:
    """The attention kernel, as far as memory goes: `auto` keeps no more than sdpa does."""
    name = recipe.model.attention
    return "sdpa" if name in ("auto", "flex_attention") else name
