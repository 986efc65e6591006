"""This machine: its device, precision, attention kernel, and what its cgroup leaves of it."""

from __future__ import annotations

import logging
import os
import platform
from importlib.util import find_spec
from pathlib import Path
from typing import Literal

import torch

from siqvl.errors import UserError
from siqvl.machine import cgroup
from siqvl.recipe import DPOStage, Recipe, SFTStage, Stage

logger = logging.getLogger(__name__)

CPUS = Path("/sys/devices/system/cpu")
CGROUP: Path | None = None  # the usual one
AMPERE = (8, 0)  # the first that FlashAttention 2 runs on

Precision = Literal["fp32", "bf16", "fp16"]
DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


def best_device() -> str:
    """`cuda`, `mps` or `cpu`: the first of these that this machine has."""
    if torch.cuda.is_available():
        return "cuda"
    return "mps" if torch.backends.mps.is_available() else "cpu"


def autocast(device: torch.device, precision: str) -> torch.autocast:
    """Compute as training does in `fp32`, `bf16` or `fp16`; nothing changes in the first."""
    dtype = torch.float16 if precision == "fp16" else torch.bfloat16
    return torch.autocast(device.type, dtype, enabled=precision != "fp32")


def precision_of(stage: SFTStage) -> Precision:
    """What a stage computes in on this machine, see `resolve_precision`."""
    return resolve_precision(stage.precision, allow_fp16=stage.allow_fp16)


def resolve_precision(precision: str, *, allow_fp16: bool = False) -> Precision:
    """What `precision` of a recipe means here; `auto` is bf16 where the hardware computes in it.

    Qwen's activations leave the range of fp16 (65,504), so `auto` never chooses it, and who wants
    it has to say so twice. A CPU without bf16 instructions emulates them, many times slower than
    fp32.

    Args:
        allow_fp16: the stage's.

    Raises:
        UserError: the precision is not to be had on this machine, or overflows.
    """
    cuda = torch.cuda.is_available()
    if precision == "auto":
        return "bf16" if has_bf16() else "fp32"
    if precision == "fp16" and not allow_fp16:
        raise UserError(
            "precision fp16 overflows in Qwen's activations: use bf16 or fp32, or set "
            "allow_fp16: true to try it"
        )
    if precision == "fp16" and not cuda:
        raise UserError("precision fp16 needs a CUDA GPU; use bf16 or fp32 on this machine")
    if precision == "bf16" and cuda and not torch.cuda.is_bf16_supported():
        name = torch.cuda.get_device_name()
        raise UserError(f"{name} has no bfloat16; set precision: fp32 in the recipe")
    return precision  # type: ignore[return-value]  # the recipe allows no other


def has_bf16() -> bool:
    """Whether this machine computes in bfloat16, instead of emulating it."""
    if torch.cuda.is_available():
        return torch.cuda.is_bf16_supported(including_emulation=False)
    if torch.backends.mps.is_available():
        return False  # autocast to bf16 needs macOS 14; fp32 runs everywhere
    capabilities = torch.cpu.get_capabilities()
    return any(capabilities.get(name, False) for name in ("avx512_bf16", "amx_bf16"))


def describe() -> str:
    """The machine in one line, for the log of a run."""
    parts = [f"{_cpu_model()}, cores: {usable_cores()}, threads: {torch.get_num_threads()}"]
    if torch.cuda.is_available():
        gpu = torch.cuda.get_device_properties(torch.cuda.current_device())
        parts.append(f"{gpu.name} with {gpu.total_memory / 2**30:.0f} GiB")
    elif torch.backends.mps.is_available():
        parts.append("Apple GPU")
    parts.append("bfloat16" if has_bf16() else "no bfloat16")
    if torch.cuda.is_available():
        parts.append("no flash attention 2" if _lacks_flash("bf16") else "flash attention 2")
    return "; ".join(parts)


def set_up(recipe: Recipe, precision: Precision) -> None:
    """Threads and float32 products of this training process.

    Both are the process's own, so that nothing about them is kept with a model.
    """
    threads = recipe.hardware.threads
    if threads is None and not os.environ.get("OMP_NUM_THREADS"):
        # Several processes with a thread for each core would only wait for one another.
        threads = max(1, usable_cores() // int(os.environ.get("LOCAL_WORLD_SIZE", "1")))
    if threads is not None:
        torch.set_num_threads(threads)
    # TF32 keeps 10 bits of a float32 factor. A run that asks for fp32 asks for exactness: resumed
    # and packed ones are compared to 1e-5. Beside bfloat16, with its 7 bits, TF32 loses nothing.
    coarse = precision != "fp32"
    torch.backends.cuda.matmul.allow_tf32 = coarse
    torch.backends.cudnn.allow_tf32 = coarse  # on by default, for the tower's convolution
    logger.info("%s; precision %s", describe(), precision)


def resolve_attention(name: str, precision: Precision, *, masked: bool = False) -> str:
    """The kernel that `model.attention` of a recipe means on this machine.

    `auto` is flash_attention_2 where it can run, else sdpa. On a CPU in bf16 eager is quicker for
    short rows (a step on 32 rows of 40 tokens: 66 ms, with sdpa 164; of 128: 239 and 435), and sdpa
    for long ones (8 of 512: 1145 and 545), so that a recipe for short rows had better say eager.

    Args:
        precision: of training; flash_attention_2 computes in 16 bits only.
        masked: rows have a mask of their own (a pair's shared prompt), which flash_attention_2
            does not take.

    Raises:
        UserError: this machine cannot run the kernel.
    """
    lacks = _lacks_flash(precision)
    if name == "auto":
        return "sdpa" if lacks or masked else "flash_attention_2"
    if name == "flash_attention_2" and lacks:
        raise UserError(f"model.attention: flash_attention_2 {lacks}; use auto")
    if name == "flex_attention" and not torch.cuda.is_available():
        # torch.nn.attention.flex_attention has no backward pass there
        raise UserError("model.attention: flex_attention trains on a GPU only; use auto")
    return name


def attention_of(recipe: Recipe, stage: Stage) -> str:
    """The attention kernel that a stage trains with on this machine.

    Raises:
        UserError: this machine has not the kernel or the precision that the recipe names.
    """
    figures = recipe.stage(stage)
    masked = isinstance(figures, DPOStage) and figures.shared_prompt
    return resolve_attention(recipe.model.attention, precision_of(figures), masked=masked)


def answering_precision(recipe: Recipe, stage: Stage) -> Precision:
    """What a checkpoint of a stage answers in on this machine, see `evaluation.precision`.

    Raises:
        UserError: this machine has not the precision that the recipe names.
    """
    precision = recipe.evaluation.precision
    if precision != "auto":
        return resolve_precision(precision)
    trained = precision_of(recipe.stage(stage))
    return "bf16" if trained == "bf16" and torch.cuda.is_available() else "fp32"


def answering_attention(name: str) -> str:
    """The kernel that answers when training is to use `name` of a recipe."""
    return name if name == "eager" else "sdpa"


def _lacks_flash(precision: Precision) -> str | None:
    """Why FlashAttention 2 does not run here; None where it does."""
    if not torch.cuda.is_available():
        return "needs an NVIDIA GPU, which this machine has not"
    if torch.cuda.get_device_capability() < AMPERE:
        return f"needs an Ampere GPU or a newer one, not {torch.cuda.get_device_name()}"
    if find_spec("flash_attn") is None:
        return "needs the package flash-attn, which is not installed"
    if precision == "fp32":
        return f"computes in 16 bits, but the stage's precision is {precision}"
    return None


def usable_cores() -> int:
    """Physical cores that this process may use: of its affinity, within its cgroup's quota.

    Two threads of one core share its arithmetic units, so that products gain nothing from both.
    """
    if hasattr(os, "sched_getaffinity"):
        cpus = os.sched_getaffinity(0)
    else:  # macOS, Windows
        cpus = set(range(os.cpu_count() or 1))
    cores = {_siblings(cpu) for cpu in cpus}
    quota = cgroup.cpu_limit(CGROUP)
    return max(1, len(cores) if quota is None else min(len(cores), int(quota)))


def _siblings(cpu: int) -> str:
    """The CPUs that share the core of one, as Linux writes them; itself if that is not known."""
    try:
        return (CPUS / f"cpu{cpu}/topology/thread_siblings_list").read_text().strip()
    except OSError:
        return str(cpu)


def device_memory() -> int | None:
    """Bytes of the GPU, or else of memory that this process may use; None where not known."""
    if torch.cuda.is_available():
        return torch.cuda.get_device_properties(torch.cuda.current_device()).total_memory
    try:
        physical = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (ValueError, OSError, AttributeError):
        return None
    return min(physical, cgroup.memory_limit(CGROUP) or physical)


def _cpu_model() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        lines = []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()
