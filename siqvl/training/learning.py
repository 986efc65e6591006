"""Which weights of a model a stage trains, and in which precision the others are kept."""

from __future__ import annotations

from siqvl.adapters.attach import attach
from siqvl.adapters.frozen_weights import keep_in
from siqvl.adapters.quantize import quantize
from siqvl.device import DTYPES, Precision
from siqvl.model.modeling import SiQVLForConditionalGeneration
from siqvl.recipe import Recipe, SFTStage
from siqvl.stages import freeze
from siqvl.training.rows import on_device


def let_learn(
    model: SiQVLForConditionalGeneration, recipe: Recipe, stage: SFTStage, precision: Precision
) -> dict[str, int]:
    """Let the parts learn that a stage trains: in full, or the language model by adapters.

    Returns:
        Number of trainable parameters by part, zero for a frozen one.

    Raises:
        UserError: see `attach`.
    """
    counts = freeze(model, stage.in_full)
    if stage.adapter is None:
        return counts
    quantized = stage.adapter.quantize != "none"
    if quantized:
        device = on_device(model).device
        quantize(model, stage.adapter, device=device, compute=DTYPES[precision])
    counts |= {"language_model": attach(model, stage.adapter, seed=recipe.seed)}
    sharded = recipe.distributed.enabled and recipe.distributed.strategy == "fsdp"
    if not quantized and not sharded:  # FSDP shards weights of one type alone
        keep_in(model, precision)
    return counts
