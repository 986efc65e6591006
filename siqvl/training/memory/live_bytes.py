"""The bytes of all tensors that are alive, after every operation."""

from __future__ import annotations

import weakref
from collections.abc import Iterator
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.weak import WeakIdKeyDictionary


class LiveBytes(TorchDispatchMode):
    """Follows the storages that operations make, and that go away, while it is entered.

    With fake tensors (`FakeTensorMode`, entered first) nothing is computed or allocated: a model
    of any size takes as long as its operations need to be looked at. What a kernel uses inside of
    itself is not seen.

    Attributes:
        timeline: bytes alive after each operation, of tensors made since this was entered.
        marks: places in it that whoever computes wants to find again.
    """

    def __init__(self) -> None:
        super().__init__()
        self.timeline: list[int] = []
        self.marks: dict[str, int] = {}
        self._live = 0
        self._known = WeakIdKeyDictionary()

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Any = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        if func is torch.ops.prim.device.default:  # of which there are more than of all others
            return func(*args)
        for storage in _storages([args, kwargs]):  # made before this was entered, such as a weight
            self._known.setdefault(storage, 0)
        out = func(*args, **(kwargs or {}))
        for storage in _storages(out):
            self._follow(storage)
        self.timeline.append(self._live)
        return out

    def _follow(self, storage: torch.UntypedStorage) -> None:
        if storage in self._known:
            return
        size = storage.nbytes()
        self._known[storage] = size
        self._live += size
        weakref.finalize(storage, self._free, size)

    def _free(self, size: int) -> None:
        self._live -= size


def _storages(values: Any) -> Iterator[torch.UntypedStorage]:
    for value in tree_leaves(values):
        if not isinstance(value, torch.Tensor):
            continue
        sparse = value.layout is torch.sparse_coo  # of an embedding's rows
        for part in (value._indices(), value._values()) if sparse else (value,):
            yield part.untyped_storage()
