"""Freed memory is kept while a stage trains, and goes back when it ends."""

from __future__ import annotations

import os
import resource
import sys

import pytest
import torch

from benchmarks.training.clock import resident_mib
from siqvl.training.loop.freed_memory import freed_memory_kept

BLOCK = 64 * 2**20  # bytes, above what glibc keeps by itself
PAGES = BLOCK // resource.getpagesize()


def _faults(blocks: int) -> int:
    """Pages that the kernel gives to blocks that are taken and freed one after the other."""
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(blocks):
        torch.ones(BLOCK // 4)
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before


@pytest.mark.skipif(sys.platform != "linux", reason="mallopt is glibc's")
def test_blocks_are_taken_from_the_kernel_once(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in os.environ:
        if name.startswith(("MALLOC_", "GLIBC_TUNABLES", "LD_PRELOAD")):
            monkeypatch.delenv(name)
    if _faults(4) < 3 * PAGES:
        pytest.skip("this kernel gives large pages, or this libc keeps what is freed")
    with monkeypatch.context() as told:
        told.setenv("MALLOC_ARENA_MAX", "1")
        with freed_memory_kept():
            assert _faults(4) >= 3 * PAGES, "who sets MALLOC_… is left alone"
    with freed_memory_kept():
        _faults(4)  # until one of them fits into what is free, however it is aligned
        assert _faults(5) < PAGES
        within = resident_mib()
    assert within - resident_mib() > 0.9 * BLOCK / 2**20, "it is given back in the end"
