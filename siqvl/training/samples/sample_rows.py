"""A few rows of a stage, and what the model in training answers to them."""

from __future__ import annotations

import numpy as np
from datasets import Dataset

from siqvl.data.batching import BatchPlan
from siqvl.data.encoded import EncodedDataset
from siqvl.data.schema import Row
from siqvl.device import Precision, answering_attention, autocast
from siqvl.generation.completions import complete, prompt_item
from siqvl.model.modeling import SiQVLForConditionalGeneration
from siqvl.model.processing import SiQVLProcessor
from siqvl.recipe import Recipe
from siqvl.tracking.sample_table import Answered
from siqvl.training.samples.undisturbed import undisturbed

#: Rows are spread over this share of a source's, those that training comes to last.
LATEST = 0.1


class Samples:
    """The `tracking.samples` rows of a stage that training comes to last.

    Args:
        dataset: the prepared rows.
        encoded: those of them that are trained on, as `plan` numbers them.
        suffix: appended to questions that have no prompt of their own.
    """

    def __init__(
        self,
        recipe: Recipe,
        dataset: Dataset,
        encoded: EncodedDataset,
        plan: BatchPlan,
        processor: SiQVLProcessor,
        precision: Precision,
        suffix: str = "",
    ) -> None:
        self._suffix = suffix
        self._items = latest_rows(plan, len(encoded), recipe.tracking.samples)
        self._rows: list[Row] = [dataset[encoded.rows[item]] for item in self._items]
        self._plan = plan
        self._processor = processor
        self._tokens = recipe.tracking.sample_tokens  # of an answer at most
        self._precision = precision
        self._attention = answering_attention(recipe.model.attention)
        self._trained_on = [0] * len(self._items)  # times, in the steps before `_counted`
        self._counted = 0

    def __len__(self) -> int:
        return len(self._rows)

    def answered(self, model: SiQVLForConditionalGeneration, step: int) -> list[Answered]:
        """Asks the model after `step` steps, and leaves it as it was."""
        with undisturbed(model, self._attention), autocast(model.device, self._precision):
            prompts = [prompt_item(row, self._processor, suffix=self._suffix) for row in self._rows]
            written = complete(model, self._processor, prompts, max_new_tokens=self._tokens)
        self._count(step)
        return [
            Answered(
                id=row["id"],
                picture=next(iter(row["images"]), None),
                question=_asked(row),
                gold=_gold(row),
                answer=completion.text,
                trained_on=times,
            )
            for row, completion, times in zip(self._rows, written, self._trained_on, strict=True)
        ]

    def _count(self, step: int) -> None:
        """Brings `_trained_on` up to a step."""
        for part in self._plan.items(self._counted, step):
            seen = np.bincount(part, minlength=max(self._items) + 1)
            self._trained_on = [
                times + int(seen[item])
                for item, times in zip(self._items, self._trained_on, strict=True)
            ]
        self._counted = step


def latest_rows(plan: BatchPlan, rows: int, count: int) -> list[int]:
    """Picks `count` rows that training sees late or never, evenly spread, of every source as many.

    What the model says to a row it has not been trained on yet tells more. By their place alone,
    so the same plan has the same samples.
    """
    first = _first_places(plan, rows)
    source_of = plan.mixture.source_of
    sources = [np.flatnonzero(source_of == one) for one in np.unique(source_of)]
    count = min(count, rows)
    picked: list[int] = []
    for number, own in enumerate(sources):
        wanted = count * (number + 1) // len(sources) - count * number // len(sources)
        latest = own[np.argsort(first[own], kind="stable")]
        latest = np.sort(latest[-max(wanted, round(LATEST * len(own))) :])
        places = (2 * np.arange(wanted) + 1) * len(latest) // (2 * max(wanted, 1))
        picked += latest[np.unique(places)].tolist()
    return picked


def _first_places(plan: BatchPlan, rows: int) -> np.ndarray:
    """[rows]: how many others training sees before it; for one it never sees, more than any."""
    never = np.iinfo(np.int64).max
    first: np.ndarray = np.full(rows, never)
    before = 0
    for part in plan.items():
        items, places = np.unique(part, return_index=True)
        new = first[items] == never
        first[items[new]] = before + places[new]
        before += len(part)
        if (first != never).all():
            break
    return first


def _asked(row: Row) -> str:
    return row["question"] if "question" in row else row["prompt"][-1]["content"]


def _gold(row: Row) -> str:
    """What would be right; of a question its first answer."""
    if "answers" in row:
        return row["answers"][0]
    return row["chosen" if "chosen" in row else "completion"][0]["content"]
