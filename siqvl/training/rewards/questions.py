"""The questions of every step, as rows for TRL, and their pictures as the tower's features."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch.utils.data import Dataset

from siqvl.data.batching import items_of
from siqvl.data.collate import Features, pictures
from siqvl.data.loader import TrainingLoader
from siqvl.device import Precision, autocast
from siqvl.model.modeling import SiQVLForConditionalGeneration
from siqvl.model.processing import SiQVLProcessor
from siqvl.recipe import RewardStage


class Questions(Dataset):
    """The batches of this process in a run; the first one of a step has all that it may ask.

    Args:
        loader: of a plan whose batches are questions, each of which a group is written to.
        features: of the frozen tower by picture, where they are cached.
    """

    def __init__(
        self,
        loader: TrainingLoader,
        stage: RewardStage,
        processor: SiQVLProcessor,
        features: Features | None = None,
    ) -> None:
        self._loader = loader
        self._stage = stage
        self._processor = processor
        self._features = features

    def __len__(self) -> int:
        return self._loader.plan.steps * self._loader.plan.accumulation

    def __getitem__(self, batch: int) -> list[dict[str, Any]]:
        """Rows with `prompt` (for people), `item`, `answers` and `choices`, one a question.

        Raises:
            IndexError: the run has no such batch.
        """
        if not 0 <= batch < len(self):
            raise IndexError(f"batch {batch} of {len(self)}")
        step, micro = divmod(batch, self._loader.plan.accumulation)
        if micro:
            return []
        return [self._row(item) for item in self.of_step(step)]

    def of_step(self, step: int) -> list[int]:
        """The questions that an optimizer step may ask in this process, batch by batch."""
        plan, rank = self._loader.plan, self._loader.rank
        return [
            item
            for micro in range(plan.accumulation)
            for item in items_of(plan.batch(step, micro, rank))
        ]

    def _row(self, item: int) -> dict[str, Any]:
        stored = self._loader.dataset.stored(item, ("question", "answers", "choices"))
        prompt = stored.pop("question") + self._stage.prompt_suffix
        return stored | {"prompt": prompt, "item": item}

    def shown(
        self, items: Sequence[int], model: SiQVLForConditionalGeneration, precision: Precision
    ) -> dict[int, torch.Tensor]:
        """Features [pictures, patches, hidden] of each item that has any, on the model's device."""
        dataset = self._loader.dataset
        different = [item for item in dict.fromkeys(items) if dataset.num_images[item]]
        if not different:
            return {}
        rows = [dataset[item] for item in different]
        batch = pictures(rows, self._processor, self._features)
        if "vision_features" in batch:
            features = batch["vision_features"].to(model.device)
        else:
            pixels = batch["pixel_values"].to(model.device)
            with torch.no_grad(), autocast(model.device, precision):
                features = model.model.get_vision_features(pixels)
        counts = [dataset.num_images[item] for item in different]
        return dict(zip(different, features.split(counts), strict=True))
