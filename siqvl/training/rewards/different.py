"""Which of a step's completions have to be computed, and in what company."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch

#: Completions in one pass; those of like length share one, which saves padding.
PASS = 64


class Different(NamedTuple):
    """The different ones among completions: a policy that is sure of itself writes many twice.

    Attributes:
        rows: one row for each different completion.
        of: [completions], where each stands in `rows`.
    """

    rows: list[int]
    of: torch.Tensor

    @classmethod
    def among(cls, items: Sequence[int], ids: torch.Tensor, mask: torch.Tensor) -> Different:
        """Two are equal if they answer the same question by the same tokens.

        Args:
            ids: [completions, tokens], prompts and completions, padded.
            mask: as `ids`, 1 where there is a token.
        """
        first: dict[tuple[int, bytes, bytes], int] = {}
        rows: list[int] = []
        of = []
        both = zip(items, ids.cpu().numpy(), mask.cpu().numpy(), strict=True)
        for row, (item, tokens, there) in enumerate(both):
            number = first.setdefault((item, tokens.tobytes(), there.tobytes()), len(rows))
            if number == len(rows):
                rows.append(row)
            of.append(number)
        return cls(rows, torch.tensor(of, device=ids.device))


def passes_over(lengths: Sequence[int], learning: Sequence[bool], size: int) -> list[list[int]]:
    """Divides rows into passes of like length, those that learn apart from those that do not.

    Args:
        size: rows of a pass at most.
    """
    found = []
    for wanted in (True, False):
        rows = [row for row, learns in enumerate(learning) if learns is wanted]
        rows.sort(key=lambda row: lengths[row])
        found += [rows[start : start + size] for start in range(0, len(rows), size)]
    return found
