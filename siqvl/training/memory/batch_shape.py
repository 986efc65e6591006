"""How large the batches of a run are."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
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
        sides: places that show each picture: 2 in pairs whose sides are samples of their own.
    """

    rows: int
    width: int
    images: int
    learned: int
    sides: int = 1

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

    @classmethod
    def extremes(
        cls, plan: BatchPlan, items: ItemWork, steps: int | None = None, *, sides: int = 1
    ) -> list[BatchShape]:
        """The batches than which no other is as large in every size.

        Args:
            steps: looked at; None: all of the run.
        """
        shapes: set[BatchShape] = set()
        looked_at = range(plan.steps if steps is None else min(steps, plan.steps))
        for place in product(looked_at, range(plan.accumulation), range(plan.world)):
            rows = [items.total(np.array(items_of([key]))) for key in plan.batch(*place)]
            width = max(row.tokens for row in rows)
            images, learned = sum(row.images for row in rows), sum(row.learned for row in rows)
            shapes.add(cls(plan.batch_size, width, images, max(1, learned), sides))
        return [one for one in shapes if not any(one.within(other) for other in shapes)]

    def within(self, other: BatchShape) -> bool:
        """Whether another batch is as large as this one in every size, and larger in one."""
        mine = (self.rows, self.width, self.images, self.learned)
        pairs = list(zip(mine, (other.rows, other.width, other.images, other.learned), strict=True))
        return all(a <= b for a, b in pairs) and any(a < b for a, b in pairs)

    def of_rows(self, rows: int) -> BatchShape:
        """A batch of more or fewer rows of this kind; images and learned tokens are rounded up."""
        share = rows / self.rows
        return replace(
            self,
            rows=rows,
            images=math.ceil(self.images * share),
            learned=math.ceil(self.learned * share),
        )
