"""The peer: TRL's SFTTrainer and DPOTrainer on the same model and rows, with the same figures.

It collates as it does for any user: DataCollatorForVisionLanguageModeling and
DataCollatorForVisionPreference, from conversational rows, with our processor and chat template. TRL
trains the line break after `<|im_end|>` too (it is in the template's text of an answer), one more
token a row than ours. For equal losses a run asks for `no_newline`: a template whose last turn ends
at `<|im_end|>`, from which TRL's own collator makes exactly our ids and labels.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmarks.training.clock import Clock
from benchmarks.training.parts import load
from benchmarks.training.rows import make_sources, trl_rows
from benchmarks.training.scenario import Scenario, recipe_for
from siqvl.stages import freeze
from siqvl.training.loop.compiled import compile_layers

if TYPE_CHECKING:
    from siqvl.recipe import SFTStage

#: What a variant of the peer may set, and what is TRL's or Hugging Face's default for it.
DEFAULTS: dict[str, Any] = {
    "gradient_checkpointing": True,
    "workers": 0,
    "sampling": "random",  # group_by_length, sequential
    "attention": None,  # null: the scenario's
    "accumulation": 1,  # batches that the rows of a step are divided into
    "compact_head": False,  # on a CPU, too, score answer tokens alone, as TRL does on GPUs
    "no_newline": False,
    "order": None,  # rows in this order
    "same_adapter": False,  # as ours begins with, for equal losses
    "compile": None,  # layers: as ours does; model: TrainingArguments.torch_compile
}


def train_peer(scenario: Scenario, settings: dict[str, Any], output: Path, clock: Clock) -> None:
    """Train as `DEFAULTS | settings` says."""
    import trl  # its trainers, before memory is noted  # noqa: F401
    from transformers import set_seed
    from trl import DPOTrainer, SFTTrainer

    settings = DEFAULTS | settings
    changes = {"precision": scenario.precision}
    recipe = recipe_for(scenario, make_sources(scenario), changes, output)
    if settings["attention"]:
        model_figures = recipe.model.model_copy(update={"attention": settings["attention"]})
        recipe = recipe.model_copy(update={"model": model_figures})
    stage = recipe.stage(scenario.recipe_stage)
    set_seed(recipe.seed)
    rows = trl_rows(scenario)
    if settings["order"] is not None:
        rows = rows.select(settings["order"])
    clock.before_model()
    model, processor = load(scenario, recipe, scenario.parent)
    if settings["no_newline"]:
        processor.chat_template = without_newline(processor.chat_template)
    if settings["compact_head"]:
        score_answers_alone()
    freeze(model, stage.trainable)  # with `peft_config` TRL does it anew
    if settings["compile"] == "layers":
        compile_layers(model)
    common = {
        "model": model,
        "args": arguments(scenario, stage, settings, output),
        "train_dataset": rows,
        "processing_class": processor,
    }
    if scenario.adapter:
        common["peft_config"] = peft_config(stage)
    elif scenario.stage == "dpo":
        common["ref_model"], _ = load(scenario, recipe, scenario.parent)
        common["ref_model"].requires_grad_(False)
    trainer = (DPOTrainer if scenario.stage == "dpo" else SFTTrainer)(**common)
    if settings["same_adapter"]:
        begin_as_ours(trainer.model, stage, load(scenario, recipe, scenario.parent)[0], recipe.seed)
    trainer.train()


def peft_config(stage: SFTStage) -> Any:
    """LoRA on the layers that ours is on, beside a projector that learns in full."""
    from siqvl.adapters.attach import lora_config

    assert stage.adapter is not None
    config = lora_config(stage.adapter)
    config.modules_to_save = ["multi_modal_projector"]
    return config


def begin_as_ours(peft_model: Any, stage: SFTStage, other: Any, seed: int) -> None:
    """Give a PEFT model the adapters that a stage of ours begins with, drawn from its seed.

    Args:
        other: one more copy of the model, to draw them on.
    """
    from siqvl.adapters.attach import adapted, attach

    attach(other, stage.adapter, seed=seed)
    ours = adapted(other)
    for name, layer in adapted(peft_model.get_base_model()).items():
        for part in ("lora_A", "lora_B"):
            weight = getattr(layer, part)["default"].weight
            weight.data.copy_(getattr(ours[name], part)["default"].weight.data)


def arguments(scenario: Scenario, stage: SFTStage, settings: dict[str, Any], output: Path) -> Any:
    """SFTConfig or DPOConfig with the figures of a stage of ours."""
    import torch
    from trl import DPOConfig, SFTConfig

    accumulation = settings["accumulation"]
    config, of_kind = (SFTConfig, {}) if scenario.stage != "dpo" else (DPOConfig, _dpo(stage))
    return config(
        output_dir=str(output / "trl"),
        seed=0,
        max_steps=scenario.steps,
        per_device_train_batch_size=scenario.rows_per_step // accumulation,
        gradient_accumulation_steps=accumulation,
        learning_rate=stage.learning_rate,
        lr_scheduler_type=stage.lr_schedule,
        warmup_steps=math.ceil(stage.warmup_ratio * scenario.steps),
        weight_decay=stage.weight_decay,
        max_grad_norm=stage.max_grad_norm,
        adam_beta2=stage.adam_beta2,
        bf16=scenario.precision == "bf16",
        use_cpu=not torch.cuda.is_available(),
        gradient_checkpointing=settings["gradient_checkpointing"],
        dataloader_num_workers=settings["workers"],
        train_sampling_strategy=settings["sampling"],
        # group_by_length reads a column that TRL takes away with the unused ones
        remove_unused_columns=settings["sampling"] != "group_by_length",
        length_column_name="length",
        max_length=None,  # the default cuts ends off; no row is longer than the stage allows
        logging_steps=stage.logging_steps,
        logging_first_step=True,
        save_strategy="no",
        report_to="none",
        torch_compile=settings["compile"] == "model",
        **of_kind,
    )


def _dpo(stage: Any) -> dict[str, Any]:
    return {
        "beta": stage.beta,
        "loss_type": list(stage.loss),
        "loss_weights": list(stage.loss.values()),
    }


def without_newline(template: str) -> str:
    """Our chat template, but that nothing follows the `<|im_end|>` of the last turn.

    Raises:
        ValueError: the template has not the one place where that is said.
    """
    ending = '{%- endgeneration %}\n        {{- "\\n" }}'
    if template.count(ending) != 1:
        raise ValueError(f"the chat template ends a turn in another way than {ending!r}")
    inner = '{%- endgeneration %}\n        {%- if not loop.last %}{{- "\\n" }}{%- endif %}'
    return template.replace(ending, inner)


def score_answers_alone() -> None:
    """Let TRL's fused head leave prompt and padding out on a CPU, too.

    On CUDA and XPU it does (`compact` in trl/trainer/utils.py `add_fused_lm_head`, TRL 1.16);
    elsewhere every position is scored. With this a CPU shows what is left of our lead where its
    head is as frugal as ours.
    """
    from trl.trainer import utils

    utils._use_triton = lambda device: True
