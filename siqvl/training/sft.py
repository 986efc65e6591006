"""Supervised fine-tuning on Hugging Face's Trainer."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from siqvl.data.collate import SFTCollator
from siqvl.data.encoded import EncodedDataset
from siqvl.recipe import Recipe, SFTStage
from siqvl.training.arguments import trainer_arguments

if TYPE_CHECKING:
    from transformers import Trainer, TrainerCallback

    from siqvl.model.modeling import SiQVLForConditionalGeneration
    from siqvl.model.processing import SiQVLProcessor


def sft_trainer(
    model: SiQVLForConditionalGeneration,
    processor: SiQVLProcessor,
    dataset: EncodedDataset,
    *,
    stage: SFTStage,
    recipe: Recipe,
    work_dir: Path,
    callbacks: list[TrainerCallback],
) -> Trainer:
    """A Trainer over encoded rows; loss on answer and end tokens alone, see `siqvl.data.encode`."""
    from transformers import Trainer, TrainingArguments

    return Trainer(
        model=model,
        args=TrainingArguments(**trainer_arguments(stage, recipe, work_dir)),
        train_dataset=dataset,
        data_collator=SFTCollator(processor),
        callbacks=callbacks,
    )
