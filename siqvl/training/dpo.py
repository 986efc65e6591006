"""Direct preference optimisation (Rafailov et al. 2023, arXiv:2305.18290) on TRL's DPOTrainer."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from siqvl.data.collate import PreferenceCollator
from siqvl.data.encoded import EncodedDataset
from siqvl.recipe import DPOStage, Recipe
from siqvl.training.arguments import trainer_arguments

if TYPE_CHECKING:
    from datasets import Dataset
    from transformers import TrainerCallback
    from trl import DPOTrainer

    from siqvl.model.modeling import SiQVLForConditionalGeneration
    from siqvl.model.processing import SiQVLProcessor


def dpo_trainer(
    model: SiQVLForConditionalGeneration,
    reference: SiQVLForConditionalGeneration,
    processor: SiQVLProcessor,
    dataset: EncodedDataset,
    *,
    stage: DPOStage,
    recipe: Recipe,
    work_dir: Path,
    callbacks: list[TrainerCallback],
) -> DPOTrainer:
    """TRL's trainer on our encoding, so that prompts, images and end tokens are those of SFT.

    `reference` is the frozen checkpoint that `model` starts from; at step 0 the loss is ln 2.
    """
    from trl import DPOConfig, DPOTrainer

    arguments = DPOConfig(
        **trainer_arguments(stage, recipe, work_dir),
        beta=stage.beta,
        loss_type=[stage.loss],
        max_length=None,  # rows were filtered by length; TRL would cut the end token off
    )
    return DPOTrainer(
        model=model,
        ref_model=reference,
        args=arguments,
        train_dataset=as_hugging_face_dataset(dataset),
        data_collator=PreferenceCollator(processor),
        processing_class=processor,
        callbacks=callbacks,
    )


def as_hugging_face_dataset(encoded: EncodedDataset) -> Dataset:
    """The same items from a `datasets.Dataset`, the only class that TRL takes.

    The table holds no more than item numbers; ids and pictures come from `encoded` when asked for.
    """
    from datasets import Dataset

    def items(batch: dict[str, list[int]]) -> dict[str, list]:
        rows = [encoded[index] for index in batch["item"]]
        return {column: [row[column] for row in rows] for column in rows[0]}

    return Dataset.from_dict({"item": list(range(len(encoded)))}).with_transform(items)
