"""Supervised fine-tuning on Hugging Face's Trainer."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from transformers import TrainerCallback

from siqvl.data.collate import Batch, Features, PackedCollator, SFTCollator
from siqvl.data.encoded import EncodedDataset
from siqvl.model.modeling import SiQVLForConditionalGeneration
from siqvl.model.processing import SiQVLProcessor
from siqvl.recipe import Recipe, SFTStage
from siqvl.training.loop.planned import PlannedTrainer, training_loader


class SFTTrainer(PlannedTrainer):
    """Hugging Face's Trainer over the batches of a plan, with logits for answer tokens alone."""

    def compute_loss(
        self,
        model: torch.nn.Module,
        inputs: Batch,
        return_outputs: bool = False,
        num_items_in_batch: torch.Tensor | int | None = None,
    ) -> Any:
        """Mean cross entropy over all answer tokens of the optimizer step, of every process.

        Args:
            num_items_in_batch: their number; None counts those of `inputs`.
        """
        outputs = model(**inputs, use_cache=False, head_chunk=self.stage.head_chunk)
        losses = -outputs.log_probs
        self.count_losses(losses)
        if num_items_in_batch is None:
            loss = losses.sum() / max(len(losses), 1)
        else:  # DDP takes the mean over the processes
            loss = losses.sum() * self.accelerator.num_processes / num_items_in_batch
        return (loss, outputs) if return_outputs else loss


def sft_trainer(
    model: SiQVLForConditionalGeneration,
    processor: SiQVLProcessor,
    dataset: EncodedDataset,
    *,
    stage: SFTStage,
    recipe: Recipe,
    rows_of_sources: Sequence[int],
    work_dir: Path,
    callbacks: list[TrainerCallback],
    features: Features | None = None,
) -> SFTTrainer:
    """A trainer over encoded rows; loss on answer and end tokens alone, see `siqvl.data.encode`.

    Args:
        features: the frozen tower's features by picture, in place of pictures.
    """
    rows = dataset if features is None else dataset.with_hashes()
    collate = _collator(model, processor, stage, features)
    loader = training_loader(
        rows, collate, stage=stage, recipe=recipe, rows_of_sources=rows_of_sources
    )
    return SFTTrainer.over(
        loader, model, stage=stage, recipe=recipe, work_dir=work_dir, callbacks=callbacks
    )


def _collator(
    model: SiQVLForConditionalGeneration,
    processor: SiQVLProcessor,
    stage: SFTStage,
    features: Features | None,
) -> SFTCollator | PackedCollator:
    if stage.batching != "packed":
        return SFTCollator(processor, features)
    attention = model.config.text_config._attn_implementation
    one_row = attention == "flash_attention_2"  # all that it recognises packs in
    return PackedCollator(processor, features, one_row=one_row)
