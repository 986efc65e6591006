"""The recipes with LoRA: what they train of models at full size, without their weights."""

from pathlib import Path
from typing import Any

import pytest
from transformers import AutoConfig

from siqvl.adapters.attach import adapted, is_adapter
from siqvl.model.assemble import build_on_meta
from siqvl.model.configuration import SiQVLConfig
from siqvl.recipe import Recipe, Stage
from siqvl.stages import part_of
from siqvl.training.learning import let_learn
from tests.model.published_sizes import QWEN_05B, QWEN_7B, QWEN_15B, SO400M

RECIPES = Path(__file__).parents[2] / "recipes"
SIZES = {"0.5b": QWEN_05B, "1.5b": QWEN_15B, "7b": QWEN_7B}


@pytest.mark.parametrize(
    ("size", "language", "rank_weights"),
    # by hand, of a layer a rank: (in + out) of q, k, v, o, gate, up and down
    [
        ("0.5b", 494_032_768, 24 * (2 * 1_792 + 2 * (896 + 128) + 3 * (896 + 4_864))),
        ("1.5b", 1_543_714_304, 28 * (2 * 3_072 + 2 * (1_536 + 256) + 3 * (1_536 + 8_960))),
        ("7b", 7_615_616_512, 28 * (2 * 7_168 + 2 * (3_584 + 512) + 3 * (3_584 + 18_944))),
    ],
)
def test_what_learns(size: str, language: int, rank_weights: int) -> None:
    recipe = Recipe.load(RECIPES / f"qwen2.5-{size}-lora.yaml")
    config = SiQVLConfig(
        vision_config=SO400M,
        text_config=AutoConfig.for_model(**SIZES[size]),
        pixel_shuffle_factor=recipe.model.pixel_shuffle_factor,
    )
    for stage in (Stage.VQA_SFT, Stage.DPO):
        figures = recipe.stage(stage)
        assert figures.adapter is not None
        model = build_on_meta(config)
        assert sum(of_part(model, "language_model").values()) == language
        counts = let_learn(model, recipe, figures, "bf16")
        assert counts["vision_tower"] == 0
        assert counts["language_model"] == figures.adapter.rank * rank_weights
        assert counts["projector"] == sum(of_part(model, "projector").values())
        assert len(adapted(model)) == 7 * config.text_config.num_hidden_layers


def of_part(model: Any, part: str) -> dict[str, int]:
    return {
        name: one.numel()
        for name, one in model.named_parameters()
        if part_of(name) == part and not is_adapter(name)
    }


@pytest.mark.parametrize("size", SIZES)
def test_the_first_stage_trains_the_projector_and_the_others_by_adapters(size: str) -> None:
    recipe = Recipe.load(RECIPES / f"qwen2.5-{size}-lora.yaml")
    first, *others = (recipe.stage(stage) for stage in recipe.trained)
    assert first.adapter is None
    assert first.trainable == ["projector"]
    assert len({one.adapter for one in others if one is not None}) == 1
    for one in others:
        assert one.in_full == ["projector"]
        assert one.learning_rates["projector"] < one.learning_rate
