"""Another peer: nanoVLM's own model, collator, optimizer and loop, from a checkout of it.

    git clone https://github.com/huggingface/nanoVLM
    python -m benchmarks.training --model 50m --stage 2 --peer-path nanoVLM

Its classes are imported as they are and made to our model's shapes: the same widths, layers, heads,
vocabulary, patches and image tokens. Its decoder has no biases in attention, which is the one
difference. Its `train()` is one function over wandb and the hub; its steps stand here in its
order: collate to the longest row, forward with a loss over every position, backward, clip, two
learning rates, AdamW. A learning rate of 0 is its way to freeze a part. It trains in fp32 here, as
ours does, not in the bf16 autocast of its script. Each of its batches has the rows of one of ours,
so that lengths in a batch are as like as ours; its own dataset would pack rows that see each
other.
"""

from __future__ import annotations

import sys
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any
from unittest.mock import MagicMock

import torch

from benchmarks.training.clock import Clock
from benchmarks.training.ours import ours_recipe
from benchmarks.training.parts import load
from benchmarks.training.scenario import Scenario
from siqvl.data.encode import encode_dataset
from siqvl.data.encoded import IGNORED
from siqvl.data.shards import load_prepared
from siqvl.stages import STAGES
from siqvl.training.loop.planned import training_loader

if TYPE_CHECKING:
    from siqvl.data.encoded import EncodedDataset
    from siqvl.model.configuration import SiQVLConfig
    from siqvl.model.processing import SiQVLProcessor
    from siqvl.recipe import Recipe, SFTStage

#: Of its picture transforms, which are imported with its tokenizer and not called.
UNUSED = (
    "torchvision",
    "torchvision.transforms",
    "torchvision.transforms.functional",
    "einops",
)


def train_nanovlm(scenario: Scenario, settings: dict[str, Any], output: Path, clock: Clock) -> None:
    """Train nanoVLM on the batches of our plan.

    Args:
        settings: `path`, of a checkout.
    """
    recipe = ours_recipe(scenario, {"cached_features": False}, output)
    stage = recipe.stage(scenario.recipe_stage)
    sys.path.insert(0, settings["path"])
    # pictures come from our processor
    sys.modules |= dict.fromkeys(UNUSED, MagicMock())
    from data.collators import VQACollator  # type: ignore[import-not-found]  # nanoVLM's
    from models.vision_language_model import VisionLanguageModel  # type: ignore[import-not-found]

    torch.manual_seed(recipe.seed)
    encoded, loader, processor, config = _plan(scenario, recipe, stage)
    clock.before_model()
    model = VisionLanguageModel(shapes(config, scenario.parts / "language"), load_backbone=False)
    model.tokenizer.image_token_id = config.image_token_id
    optimizer, learned = _optimizer(model, stage)
    collate = VQACollator(model.tokenizer, None)
    arguments = SimpleNamespace(train_batch_size=0, gradient_accumulation_steps=1)
    state = SimpleNamespace(global_step=0, max_steps=scenario.steps)
    clock.on_train_begin(arguments, state, None, model=SimpleNamespace(config=config))
    batches = loader.dataloader()
    model.train()
    for step in range(scenario.steps):
        clock.on_step_begin(arguments, state, None)
        items = [int(item) for part in loader.plan.items(step, step + 1) for item in part]
        batch = collate([_sample(encoded, item, processor) for item in items])
        _, loss = model(
            batch["input_ids"],
            batch["images"],
            attention_mask=batch["attention_mask"],
            targets=batch["labels"],
        )
        loss.backward()
        torch.nn.utils.clip_grad_norm_(learned, max_norm=stage.max_grad_norm)
        optimizer.step()
        optimizer.zero_grad()
        clock.losses.append(loss.item())
        state.global_step = step + 1
        clock.on_step_end(arguments, state, None, train_dataloader=batches)


def shapes(config: SiQVLConfig, tokenizer: Path) -> Any:
    """nanoVLM's config of a model of our shapes."""
    from models.config import VLMConfig  # type: ignore[import-not-found]

    vision, text = config.vision_config, config.text_config
    return VLMConfig(
        vit_hidden_dim=vision.hidden_size,
        vit_inter_dim=vision.intermediate_size,
        vit_patch_size=vision.patch_size,
        vit_img_size=vision.image_size,
        vit_n_heads=vision.num_attention_heads,
        vit_n_blocks=vision.num_hidden_layers,
        vit_ln_eps=vision.layer_norm_eps,
        lm_hidden_dim=text.hidden_size,
        lm_inter_dim=text.intermediate_size,
        lm_rms_eps=text.rms_norm_eps,
        lm_re_base=int(text.rope_parameters["rope_theta"]),
        lm_max_position_embeddings=text.max_position_embeddings,
        lm_vocab_size=text.vocab_size,
        lm_n_heads=text.num_attention_heads,
        lm_n_kv_heads=text.num_key_value_heads,
        lm_n_blocks=text.num_hidden_layers,
        lm_tie_weights=text.tie_word_embeddings,
        lm_tokenizer=str(tokenizer),
        lm_chat_template=None,
        vlm_extra_tokens=None,
        mp_pixel_shuffle_factor=config.pixel_shuffle_factor,
        mp_image_token_length=config.tokens_per_image,
    )


def _plan(
    scenario: Scenario, recipe: Recipe, stage: SFTStage
) -> tuple[EncodedDataset, Any, SiQVLProcessor, SiQVLConfig]:
    """Our encoded rows and the plan of our batches; our model is built for its config alone."""
    model, processor = load(scenario, recipe, scenario.parent)
    kind = STAGES[scenario.recipe_stage].rows
    dataset, manifest = load_prepared(scenario.data, kind, verify=False)
    encoded = encode_dataset(dataset, processor, kind=kind, max_length=stage.max_length)
    loader = training_loader(encoded, list, stage=stage, recipe=recipe, manifest=manifest)
    return encoded, loader, processor, model.config


def _optimizer(model: Any, stage: SFTStage) -> tuple[torch.optim.Optimizer, list[torch.Tensor]]:
    """AdamW over nanoVLM's groups; what has none is frozen."""
    model.vision_encoder.requires_grad_(False)
    groups = [{"params": list(model.MP.parameters()), "lr": stage.learning_rate}]
    if "language_model" in stage.trainable:
        groups.append({"params": list(model.decoder.parameters()), "lr": stage.learning_rate})
    else:
        model.decoder.requires_grad_(False)
    optimizer = torch.optim.AdamW(groups)
    return optimizer, [one for group in optimizer.param_groups for one in group["params"]]


def _sample(encoded: EncodedDataset, item: int, processor: SiQVLProcessor) -> dict[str, Any]:
    """A row as nanoVLM's dataset gives it: labels are those of the next token."""
    row = encoded[item]
    ids = torch.tensor(row["input_ids"])
    labels = torch.tensor(row["labels"]).roll(-1)
    labels[-1] = IGNORED
    pictures = list(row["images"])
    pixels = processor.image_processor(pictures, return_tensors="pt") if pictures else None
    return {
        "input_ids": ids,
        "attention_mask": torch.ones_like(ids),
        "labels": labels,
        "images": [] if pixels is None else [pixels["pixel_values"]],
    }
