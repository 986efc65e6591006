"""What a GPU computes at best, to compare training with."""

from __future__ import annotations

import re

import torch

from siqvl.device import Precision
from siqvl.recipe import Recipe

#: Dense bfloat16 products on tensor cores, summed in float32, in 10^12 operations a second: from
#: NVIDIA's data sheet of each product, where most are stated "with sparsity", which is twice as
#: much; RTX cards from the appendices of the GA102 and Ada architecture white papers. Laptop, MIG
#: and vGPU devices, which do less, are not among them.
PUBLISHED: dict[str, float] = {
    r"B200": 2250,
    r"GH200\b.*": 989,
    r"H200 NVL": 835.5,
    r"H200": 989,
    r"H100 NVL": 835.5,
    r"H100 PCIe": 756,
    r"H100( SXM5)?( \d+GB HBM[23]e?)?": 989,
    r"A100\b.*": 312,
    r"A800\b.*": 312,
    r"A40": 149.7,
    r"A30": 165,
    r"A10G": 70,  # made for AWS, with half the tensor throughput of an A10
    r"A10": 125,
    r"L40S": 362,
    r"L40": 181,
    r"L4": 121,
    r"RTX A6000": 154.8,
    r"RTX 6000 Ada Generation": 364.2,
    r"GeForce RTX 5090": 209.5,  # appendix A of the RTX Blackwell white paper
    r"GeForce RTX 4090": 165.2,
    r"GeForce RTX 3090": 71,
    r"Tesla V100-SXM2-\d+GB": 125,  # float16: neither has bfloat16
    r"Tesla T4": 65,
}


def peak_flops(recipe: Recipe, precision: Precision) -> float | None:
    """Operations a second that one device of this machine does at best, for MFU.

    `hardware.peak_tflops` of the recipe comes first. What is published is for 16-bit products, so
    there is nothing to compare training in fp32 with, nor training on a CPU.

    Returns:
        None if it is not known.
    """
    name = torch.cuda.get_device_name() if torch.cuda.is_available() else None
    return peak_of(name, recipe, precision)


def peak_of(device: str | None, recipe: Recipe, precision: str) -> float | None:
    """As `peak_flops`, of a GPU by torch's name of it; None: of a device that is none."""
    if recipe.hardware.peak_tflops is not None:
        return recipe.hardware.peak_tflops * 1e12
    if precision == "fp32" or device is None:
        return None
    return published_peak(device)


def published_peak(name: str) -> float | None:
    """The peak of a GPU by its name, as `torch.cuda.get_device_name` gives it.

    Only a whole name counts: of `NVIDIA GeForce RTX 4090 Laptop GPU` nothing is known.
    """
    bare = name.removeprefix("NVIDIA ")
    for pattern, tflops in PUBLISHED.items():
        if "MIG" not in bare and re.fullmatch(pattern, bare):
            return tflops * 1e12
    return None
