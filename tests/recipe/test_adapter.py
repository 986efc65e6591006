"""The section `adapter`: what it means, and what is refused in one sentence."""

from pathlib import Path
from typing import Any

import pytest
import yaml

from siqvl.errors import UserError
from siqvl.recipe import Adapter, Recipe, Stage

TINY = Path(__file__).parents[2] / "recipes" / "tiny.yaml"


def with_adapter(adapter: Any, stage: str = "vqa_sft", **figures: Any) -> Recipe:
    content = yaml.safe_load(TINY.read_text())
    content["stages"][stage] |= {"adapter": adapter} | figures
    return Recipe.model_validate(content)


def test_the_language_model_learns_by_the_adapter_and_the_projector_in_full() -> None:
    stage = with_adapter({"rank": 4}).stage(Stage.VQA_SFT)
    assert stage.in_full == ["projector"]
    assert stage.adapter == Adapter(rank=4)
    assert stage.adapter.layers[0] == "q_proj"
    assert len(stage.adapter.layers) == 7
    alone = with_adapter({}, trainable=["language_model"]).stage(Stage.VQA_SFT)
    assert alone.in_full == []
    assert with_adapter(None).stage(Stage.VQA_SFT).in_full == ["projector", "language_model"]


def test_a_recipe_without_adapters_is_the_one_it_was() -> None:
    plain = yaml.safe_load(TINY.read_text())
    for stage in plain["stages"].values():
        stage.pop("adapter", None)
    assert Recipe.model_validate(plain).hash() == Recipe.load(TINY).hash()
    assert "adapter" not in Recipe.load(TINY).model_dump_json()


def test_the_values_that_the_recipe_documents_are_the_defaults() -> None:
    lines = TINY.read_text().splitlines()
    start = next(n for n, line in enumerate(lines) if line.strip().startswith("# adapter:"))
    section = "\n".join(line.replace("#", " ", 1) for line in lines[start : start + 6])
    documented = yaml.safe_load(section)["adapter"]
    assert documented.keys() == Adapter.model_fields.keys()
    assert Adapter(**documented) == Adapter()


@pytest.mark.parametrize(
    ("adapter", "figures", "message"),
    [
        ({}, {"trainable": ["projector"]}, "list language_model under `trainable`"),
        (
            {},
            {
                "trainable": ["vision_tower", "projector", "language_model"],
                "cached_features": False,
            },
            "adapter needs a frozen vision_tower",
        ),
        ({"targets": "all"}, {}, "targets should be all-linear, or a list of q_proj, k_proj"),
        ({"targets": ["q_proj", "lm_head"]}, {}, "targets should be all-linear, or a list"),
        ({"targets": ["q_proj", "q_proj"]}, {}, "each of them once"),
        ({"targets": []}, {}, "each of them once"),
        ({"rank": 0}, {}, "`stages.vqa_sft.adapter.rank`: Input should be greater than 0"),
        ({"dropout": 1.0}, {}, "`stages.vqa_sft.adapter.dropout`: Input should be less than 1"),
        ({"quantize": "fp4"}, {}, "`stages.vqa_sft.adapter.quantize`: Input should be 'none'"),
        ({"ranks": 3}, {}, "unknown key `stages.vqa_sft.adapter.ranks`, did you mean `rank`?"),
    ],
)
def test_what_makes_no_sense_is_one_sentence(
    adapter: dict, figures: dict[str, Any], message: str
) -> None:
    with pytest.raises(UserError) as caught:
        with_adapter(adapter, **figures)
    assert message in caught.value.message
    assert "\n" not in caught.value.message
    assert "; " not in caught.value.message  # one complaint


def test_the_first_stage_has_no_checkpoint_that_an_adapter_would_belong_to() -> None:
    with pytest.raises(UserError, match=r"`stages`: projector_alignment.adapter: the first stage"):
        with_adapter({}, "projector_alignment", trainable=["projector", "language_model"])
