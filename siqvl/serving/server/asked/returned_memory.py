"""Memory that large pictures took, given back to the system."""

from __future__ import annotations

import ctypes
from functools import lru_cache
from typing import Any


def return_memory() -> None:
    """Has the allocator give back what is free.

    glibc keeps what a thread has freed for that thread: after some pictures of 49 megapixels, more
    than half a gigabyte of nothing. Other allocators are left alone.
    """
    trim = _trim()
    if trim is not None:
        trim(0)


@lru_cache
def _trim() -> Any:
    try:
        return ctypes.CDLL(None).malloc_trim
    except (AttributeError, OSError, TypeError):  # no glibc
        return None
