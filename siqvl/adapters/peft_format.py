"""What a stage learnt beside its merged checkpoint, as PEFT keeps it.

`peft.PeftModel.from_pretrained(parent, folder)` gives the model of the stage: `parent` is the
checkpoint that the stage continued from, and the folder holds A and B of every layer, and the
projector where it learnt in full, as one of PEFT's `modules_to_save`.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import torch

from siqvl.adapters.attach import NAME, is_adapter, lora_config
from siqvl.recipe import SFTStage
from siqvl.stages import part_of

if TYPE_CHECKING:
    from siqvl.model.modeling import SiQVLForConditionalGeneration

WEIGHTS = "adapter_model.safetensors"  # PEFT's names, of files and of what is in them
PREFIX = "base_model.model."
PROJECTOR = "multi_modal_projector"


def write_adapter(
    folder: Path,
    model: SiQVLForConditionalGeneration,
    stage: SFTStage,
    *,
    parent: str,
    weights: dict[str, torch.Tensor] | None = None,
) -> None:
    """Write `adapter_config.json` and the weights that a stage learnt.

    Args:
        folder: is made.
        parent: hash of the checkpoint that the adapters belong to, named as their base model.
        weights: of `model`, where it holds only a share of them (FSDP).
    """
    from safetensors.torch import save_file

    assert stage.adapter is not None
    config = lora_config(stage.adapter)
    if "projector" in stage.in_full:
        config.modules_to_save = [PROJECTOR]
    config.base_model_name_or_path = f"siqvl checkpoint {parent}"
    config.inference_mode = True
    folder.mkdir()
    config.save_pretrained(str(folder))
    held = model.state_dict() if weights is None else weights
    learnt = {
        PREFIX + name.replace(f".{NAME}.", "."): value.detach().cpu().contiguous()
        for name, value in held.items()
        if is_adapter(name) or part_of(name) in stage.in_full
    }
    save_file(learnt, folder / WEIGHTS, metadata={"format": "pt"})
