"""A stage's recipe as the arguments of Hugging Face's Trainer."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import torch

from siqvl.device import precision_of
from siqvl.errors import UserError
from siqvl.model.configuration import SiQVLConfig
from siqvl.model.decoders import decoder_of
from siqvl.recipe import Recipe, SFTStage


def trainer_arguments(
    stage: SFTStage, recipe: Recipe, config: SiQVLConfig, work_dir: Path, steps: int
) -> dict[str, Any]:
    """Keyword arguments of `TrainingArguments`.

    Args:
        config: of the model.
        steps: optimizer steps of the whole run, which the plan of its batches knows.

    Raises:
        UserError: the precision is not to be had on this machine.
    """
    precision = precision_of(stage)
    return {
        "output_dir": str(work_dir),
        "seed": recipe.seed,
        "data_seed": recipe.seed,
        "max_steps": steps,
        "per_device_train_batch_size": stage.batch_size,
        "gradient_accumulation_steps": stage.accumulation,
        "learning_rate": stage.learning_rate,
        "lr_scheduler_type": stage.lr_schedule,
        "warmup_steps": math.ceil(stage.warmup_ratio * steps),
        "weight_decay": stage.weight_decay,
        "max_grad_norm": stage.max_grad_norm,
        "adam_beta2": stage.adam_beta2,
        "bf16": precision == "bf16",
        "fp16": precision == "fp16",
        "activation_checkpointing": stage.gradient_checkpointing,
        "activation_checkpointing_kwargs": {"use_reentrant": False},
        # Asked for by name, or accelerate takes several CPU processes for single ones.
        "use_cpu": not (torch.cuda.is_available() or torch.backends.mps.is_available()),
        "logging_steps": stage.logging_steps,
        "logging_first_step": True,
        "logging_nan_inf_filter": False,  # it hides what `siqvl.training.loop.finite` stops at
        "save_strategy": "steps",
        "save_steps": stage.saving_steps,
        "save_total_limit": stage.kept_states,
        "remove_unused_columns": False,  # the collators read the image column themselves
        "label_names": ["labels"],
        "report_to": "none",  # siqvl.tracking logs, into runs whose ids survive processes
        "ddp_find_unused_parameters": True,  # a text-only batch gives the projector no gradient
        **_sharding(recipe, config),
    }


def sharded_layers(config: SiQVLConfig) -> list[str]:
    """What FSDP gathers and frees as one: layers of which there are many, by their classes."""
    text = config.text_config
    return ["SiglipEncoderLayer", decoder_of(text).layer_class(text)]


def _sharding(recipe: Recipe, config: SiQVLConfig) -> dict[str, Any]:
    """FSDP2's arguments, where the recipe asks for it; accelerate knows it on GPUs alone.

    Raises:
        UserError: it is asked for on a machine without a GPU.
    """
    distributed = recipe.distributed
    if not distributed.enabled or distributed.strategy != "fsdp":
        return {}
    if not torch.cuda.is_available():
        raise UserError("distributed.strategy fsdp needs GPUs; set it to ddp on this machine")
    sharding = {
        "version": 2,
        "auto_wrap_policy": "TRANSFORMER_BASED_WRAP",
        "transformer_layer_cls_to_wrap": sharded_layers(config),
        "state_dict_type": "FULL_STATE_DICT",
        "reshard_after_forward": True,
    }
    return {"fsdp": True, "fsdp_config": sharding}
