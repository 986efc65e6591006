"""Direct preference optimisation (Rafailov et al. 2023, arXiv:2305.18290) on TRL's DPOTrainer."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from siqvl.data.collate import PreferenceCollator
from siqvl.data.encoded import EncodedDataset
from siqvl.recipe import DPOStage, Recipe
from siqvl.training.arguments import trainer_arguments

if TYPE_CHECKING:
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
        train_dataset=dataset.to_dataset(),  # the only class that TRL takes
        data_collator=PreferenceCollator(processor),
        processing_class=processor,
        callbacks=callbacks,
    )
