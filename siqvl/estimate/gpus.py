"""GPUs by the names that people call them: memory, and what they compute."""

from __future__ import annotations

from dataclasses import dataclass

from siqvl.errors import UserError


@dataclass(frozen=True)
class Gpu:
    """A GPU as its data sheet has it.

    Attributes:
        device: what torch calls it, by which `siqvl.training.figures.peak_flops` knows its peak.
        gigabytes: of memory. NVIDIA's are 2^30 bytes, but for those above 100.
        bf16: whether it computes in bfloat16 (Ampere and later).
    """

    device: str
    gigabytes: float
    bf16: bool = True

    @property
    def bytes(self) -> int:
        """Memory in bytes."""
        return int(self.gigabytes * (10**9 if self.gigabytes > 100 else 2**30))


#: NVIDIA's data sheets of each product; GeForce cards by their product pages.
GPUS: dict[str, Gpu] = {
    "b200": Gpu("B200", 180),
    "h200": Gpu("H200", 141),
    "h100": Gpu("H100", 80),
    "h100-pcie": Gpu("H100 PCIe", 80),
    "h100-nvl": Gpu("H100 NVL", 94),
    "a100-80": Gpu("A100-SXM4-80GB", 80),
    "a100-40": Gpu("A100-SXM4-40GB", 40),
    "l40s": Gpu("L40S", 48),
    "a40": Gpu("A40", 48),
    "rtx6000-ada": Gpu("RTX 6000 Ada Generation", 48),
    "rtx-a6000": Gpu("RTX A6000", 48),
    "5090": Gpu("GeForce RTX 5090", 32),
    "v100-32": Gpu("Tesla V100-SXM2-32GB", 32, bf16=False),
    "4090": Gpu("GeForce RTX 4090", 24),
    "3090": Gpu("GeForce RTX 3090", 24),
    "a10g": Gpu("A10G", 24),
    "l4": Gpu("L4", 24),
    "v100-16": Gpu("Tesla V100-SXM2-16GB", 16, bf16=False),
    "t4": Gpu("Tesla T4", 16, bf16=False),
}


def gpu_named(name: str) -> Gpu:
    """A GPU by its name, in upper or lower case.

    Raises:
        UserError: it is not in the table.
    """
    found = GPUS.get(name.lower())
    if found is None:
        raise UserError(f"--gpu {name} is none of {', '.join(GPUS)}")
    return found
