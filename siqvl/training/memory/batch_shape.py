"""How large the batches of a run are."""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import product

import numpy as np

from siqvl.data.batching import BatchPlan, items_of
from siqvl.training.figures.work import ItemWork


@dataclass(frozen=True)
class BatchShape:
    """A batch of one device.

    Attributes:
        rows: sequences.
        width: tokens of each, filling included.
        images: of all rows.
        learned: tokens of all rows whose probability is computed.
    """

    rows: int
    width: int
    images: int
    learned: int

    @classmethod
    def largest(cls, plan: BatchPlan, items: ItemWork, steps: int = 200) -> BatchShape:
        """The largest of each size among the batches of the first steps."""
        width = images = learned = 0
        looked_at = range(min(steps, plan.steps))
        for place in product(looked_at, range(plan.accumulation), range(plan.world)):
            rows = [items.total(np.array(items_of([key]))) for key in plan.batch(*place)]
            width = max(width, *(row.tokens for row in rows))
            images = max(images, sum(row.images for row in rows))
            learned = max(learned, sum(row.learned for row in rows))
        return cls(plan.batch_size, width, images, max(1, learned))

    def of_rows(self, rows: int) -> BatchShape:
        """A batch of more or fewer rows of this kind; images and learned tokens are rounded up."""
        share = rows / self.rows
        return BatchShape(
            rows, self.width, math.ceil(self.images * share), math.ceil(self.learned * share)
        )
