"""Memory of weights that a file backs and nobody reads any more."""

from __future__ import annotations

import ctypes
import mmap

import torch

MADV_PAGEOUT = 21  # of madvise(2), Linux 5.4; it frees memory and never content


def let_go(weight: torch.Tensor) -> None:
    """Tell the kernel that nobody is going to read these weights soon.

    A checkpoint's file is mapped into memory as a whole, for as long as one of its weights is used:
    pages of others stay. What no file backs stays in memory, and where there is no such call, all.
    """
    if weight.device.type != "cpu" or not weight.is_contiguous():
        return
    begin = -(-weight.data_ptr() // mmap.PAGESIZE) * mmap.PAGESIZE
    length = weight.data_ptr() + weight.nbytes - begin
    if length < mmap.PAGESIZE:
        return
    try:
        madvise = ctypes.CDLL(None).madvise
    except (OSError, TypeError, AttributeError):  # Windows
        return
    madvise(ctypes.c_void_p(begin), ctypes.c_size_t(length), MADV_PAGEOUT)
