"""Memory that a training step frees is kept for the next one, where glibc would give it back.

glibc takes every block above 32 MiB from the kernel, and gives it back when it is freed. With a
large vocabulary logits and gradients are such blocks, in every step: the kernel clears each of
their pages anew, 900,000 of them in eight steps of a model of 50 million parameters. Keeping them
takes no more memory at the peak.
"""

from __future__ import annotations

import ctypes
import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch

#: Of mallopt(3).
TRIM_THRESHOLD, MMAP_THRESHOLD, MMAP_MAX = -1, -3, -4
USUAL_MMAP_MAX = 65_536
LARGEST_THRESHOLD = 32 * 2**20  # that glibc's own adjustment goes to
MOST = 2**31 - 1  # of an int
#: Users who set one of these know better.
VARIABLES = ("MALLOC_", "GLIBC_TUNABLES", "LD_PRELOAD")


@contextmanager
def freed_memory_kept() -> Iterator[None]:
    """Within it no freed memory goes back to the kernel; afterwards all that is free does.

    Nothing is done for training on a GPU, without glibc, or where the environment says how memory
    is allocated.
    """
    library = None if torch.cuda.is_available() or _is_told() else _glibc()
    if library is None:
        yield
        return
    library.mallopt(MMAP_MAX, 0)
    library.mallopt(TRIM_THRESHOLD, MOST)
    try:
        yield
    finally:
        library.mallopt(MMAP_MAX, USUAL_MMAP_MAX)
        # once set, thresholds are not adjusted any more: these are where that would lead
        library.mallopt(MMAP_THRESHOLD, LARGEST_THRESHOLD)
        library.mallopt(TRIM_THRESHOLD, 2 * LARGEST_THRESHOLD)
        library.malloc_trim(0)


def _is_told() -> bool:
    return any(name.startswith(VARIABLES) for name in os.environ)


def _glibc() -> Any:
    """The C library of this process if it is glibc."""
    try:
        library = ctypes.CDLL(None)
        return library if library.mallopt and library.malloc_trim else None
    except (OSError, TypeError, AttributeError):  # Windows; musl and macOS lack them
        return None
