"""Supervised fine-tuning on Hugging Face's Trainer."""

from __future__ import annotations

from typing import Any

import torch

from siqvl.data.collate import Batch, Features, PackedCollator, SFTCollator
from siqvl.model.modeling import SiQVLForConditionalGeneration
from siqvl.model.processing import SiQVLProcessor
from siqvl.recipe import SFTStage
from siqvl.training.loop.planned import PlannedTrainer


class SFTTrainer(PlannedTrainer):
    """Hugging Face's Trainer over the batches of a plan, with logits for answer tokens alone.

    Loss is on answer and end tokens, see `siqvl.data.encode`.
    """

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

    @classmethod
    def make_collator(
        cls,
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
