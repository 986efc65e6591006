"""Direct preference optimisation (Rafailov et al. 2023, arXiv:2305.18290) on TRL's DPOTrainer."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from transformers import TrainerCallback
from trl import DPOConfig, DPOTrainer

from siqvl.data.collate import Features, PreferenceCollator
from siqvl.data.encoded import EncodedDataset
from siqvl.recipe import DPOStage, Recipe
from siqvl.training.arguments import trainer_arguments
from siqvl.training.planned import PlannedBatches, training_loader

if TYPE_CHECKING:
    from siqvl.model.modeling import SiQVLForConditionalGeneration
    from siqvl.model.processing import SiQVLProcessor


class PreferenceTrainer(PlannedBatches, DPOTrainer):
    """TRL's DPOTrainer over the batches of a plan."""


def dpo_trainer(
    model: SiQVLForConditionalGeneration,
    reference: SiQVLForConditionalGeneration,
    processor: SiQVLProcessor,
    dataset: EncodedDataset,
    *,
    stage: DPOStage,
    recipe: Recipe,
    rows_of_sources: Sequence[int],
    work_dir: Path,
    callbacks: list[TrainerCallback],
    features: Features | None = None,
) -> PreferenceTrainer:
    """TRL's trainer on our encoding, so that prompts, images and end tokens are those of SFT.

    `reference` is the frozen checkpoint that `model` starts from; without `stage.sft_weight` the
    loss at step 0 is ln 2. With it, that many times the mean negative log-likelihood of the chosen
    completions' tokens is added (Pang et al. 2024, arXiv:2404.19733): here a mean over all of them
    in a batch, so that long completions count for more than short ones. It keeps right answers from
    growing unlikely while wrong ones grow unlikelier still.

    Args:
        features: the frozen tower's features by picture, in place of pictures.
    """
    rows = dataset if features is None else dataset.with_hashes()
    collate = PreferenceCollator(processor, features=features)
    loader = training_loader(
        rows, collate, stage=stage, recipe=recipe, rows_of_sources=rows_of_sources
    )
    losses = dict(stage.loss)
    arguments = DPOConfig(
        **trainer_arguments(stage, recipe, work_dir, loader.plan.steps),
        beta=stage.beta,
        loss_type=list(losses),
        loss_weights=list(losses.values()),
        max_length=None,  # rows were filtered by length; TRL would cut the end token off
    )
    trainer = PreferenceTrainer(
        model=model,
        ref_model=reference,
        args=arguments,
        # the only class that TRL takes; it looks at the columns, and batches come from the loader
        train_dataset=dataset.to_dataset(),
        data_collator=collate,
        processing_class=processor,
        callbacks=callbacks,
    )
    trainer.loader, trainer.stage = loader, stage
    return trainer
