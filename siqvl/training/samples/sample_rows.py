"""What the model in training answers to a few rows of its stage."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from siqvl.data.schema import Row
from siqvl.device import Precision, answering_attention, autocast
from siqvl.generation.completions import complete, prompt_item
from siqvl.recipe import Recipe
from siqvl.tracking.sample_table import Answered
from siqvl.training.samples.latest_rows import latest_rows
from siqvl.training.samples.undisturbed import undisturbed

if TYPE_CHECKING:
    from datasets import Dataset

    from siqvl.data.batching import BatchPlan
    from siqvl.data.encoded import EncodedDataset
    from siqvl.model.modeling import SiQVLForConditionalGeneration
    from siqvl.model.processing import SiQVLProcessor


class Samples:
    """A few rows of a stage and their prompts.

    Args:
        rows: prepared rows, decoded.
        items: their numbers in the plan.
        tokens: of an answer at most.
        attention: the kernel that answers.
    """

    def __init__(
        self,
        rows: Sequence[Row],
        items: Sequence[int],
        plan: BatchPlan,
        processor: SiQVLProcessor,
        *,
        tokens: int,
        precision: Precision,
        attention: str,
    ) -> None:
        self._rows = rows
        self._plan = plan
        self._processor = processor
        self._tokens = tokens
        self._precision = precision
        self._attention = attention
        self._items = items
        self._trained_on = [0] * len(items)  # times, in the steps before `_counted`
        self._counted = 0

    @classmethod
    def of(
        cls,
        recipe: Recipe,
        dataset: Dataset,
        encoded: EncodedDataset,
        plan: BatchPlan,
        processor: SiQVLProcessor,
        precision: Precision,
    ) -> Samples:
        """`tracking.samples` rows of those that training comes to last."""
        items = latest_rows(plan, len(encoded), recipe.tracking.samples)
        return cls(
            [dataset[encoded.rows[item]] for item in items],
            items,
            plan,
            processor,
            tokens=recipe.tracking.sample_tokens,
            precision=precision,
            attention=answering_attention(recipe.model.attention),
        )

    def __len__(self) -> int:
        return len(self._rows)

    def answered(self, model: SiQVLForConditionalGeneration, step: int) -> list[Answered]:
        """What the model says after `step` steps; it is left as it was."""
        with undisturbed(model, self._attention):
            answers = self._answers(model)
        self._count(step)
        return [
            Answered(
                id=row["id"],
                picture=next(iter(row["images"]), None),
                question=row["prompt"][-1]["content"],
                gold=row["chosen" if "chosen" in row else "completion"][0]["content"],
                answer=answer,
                trained_on=times,
            )
            for row, answer, times in zip(self._rows, answers, self._trained_on, strict=True)
        ]

    def _answers(self, model: SiQVLForConditionalGeneration) -> list[str]:
        prompts = [prompt_item(row, self._processor) for row in self._rows]
        with autocast(model.device, self._precision):
            written = complete(model, self._processor, prompts, max_new_tokens=self._tokens)
        return [one.text for one in written]

    def _count(self, step: int) -> None:
        """Bring `_trained_on` up to a step."""
        import numpy as np

        for part in self._plan.items(self._counted, step):
            seen = np.bincount(part, minlength=max(self._items) + 1)
            self._trained_on = [
                times + int(seen[item])
                for item, times in zip(self._items, self._trained_on, strict=True)
            ]
        self._counted = step
