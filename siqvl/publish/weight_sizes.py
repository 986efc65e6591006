"""How large a model is, read from the heads of its safetensors files without loading them."""

from __future__ import annotations

import json
import math
import struct
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from siqvl.errors import UserError
from siqvl.stages import PART_PREFIXES, part_of

LONGEST_HEAD = 100_000_000  # bytes, of the format's own reader


@dataclass(frozen=True)
class WeightSizes:
    """Parameters and bytes of a checkpoint's weights.

    Attributes:
        parts: parameters by part of the model.
        dtypes: parameters by the name of their type, such as `BF16`.
        bytes: of all weight files together.
    """

    parts: dict[str, int]
    dtypes: dict[str, int]
    bytes: int

    @property
    def parameters(self) -> int:
        """Return the number of all parameters; tied ones are one."""
        return sum(self.parts.values())

    @classmethod
    def of(cls, folder: Path) -> WeightSizes:
        """Read the sizes of a checkpoint directory.

        Raises:
            UserError: a file is no safetensors file, or holds a weight of no known part.
        """
        parts: Counter[str] = Counter(dict.fromkeys(PART_PREFIXES, 0))
        dtypes: Counter[str] = Counter()
        files = sorted(folder.glob("*.safetensors"))
        for file in files:
            for name, tensor in weights_head(file).items():
                if name == "__metadata__":
                    continue
                count = math.prod(tensor["shape"])
                try:
                    parts[part_of(name)] += count
                except ValueError as error:
                    raise UserError(f"{file.name}: {error}") from None
                dtypes[tensor["dtype"]] += count
        return cls(dict(parts), dict(dtypes), sum(file.stat().st_size for file in files))


def weights_head(file: Path) -> dict[str, Any]:
    """Return the JSON head of a safetensors file: shapes and types by name.

    Raises:
        UserError: it is none.
    """
    try:
        with open(file, "rb") as opened:
            (length,) = struct.unpack("<Q", opened.read(8))
            if length > LONGEST_HEAD:
                raise ValueError
            head = json.loads(opened.read(length))
    except (struct.error, ValueError):
        raise UserError(f"{file.name} is no safetensors file") from None
    if not isinstance(head, dict):
        raise UserError(f"{file.name} is no safetensors file")
    return head
