"""Estimates against arithmetic of their own, published counts, and files that were written."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from transformers import AutoConfig

from siqvl.errors import UserError
from siqvl.estimate.disk import Weights, state_bytes
from siqvl.estimate.estimate_table import estimate_lines
from siqvl.estimate.gpus import GPUS, gpu_named
from siqvl.estimate.operations import hours, stage_operations
from siqvl.estimate.part_configs import model_config
from siqvl.estimate.published_parts import published_language, published_vision
from siqvl.estimate.recipe_estimate import estimate_recipe
from siqvl.recipe import Recipe, Stage
from siqvl.training.figures.peak_flops import published_peak
from siqvl.training.figures.work import Work
from siqvl.training.memory.step_memory import parameter_counts
from tests.small_checkpoint import small_checkpoint

ROOT = Path(__file__).parents[2]
#: Parameters as the hub counts them in each repository's safetensors, a tied head once.
PUBLISHED = {
    "Qwen/Qwen2.5-0.5B-Instruct": 494_032_768,
    "Qwen/Qwen2.5-1.5B-Instruct": 1_543_714_304,
    "Qwen/Qwen2.5-7B-Instruct": 7_615_616_512,
    "Qwen/Qwen3-0.6B": 596_049_920,
    "Qwen/Qwen3-4B": 4_022_468_096,
}


def changed(*changes: str, recipe: str = "qwen2.5-0.5b") -> Recipe:
    return Recipe.load(ROOT / "recipes" / f"{recipe}.yaml", changes)


@pytest.fixture(autouse=True)
def _no_hub(monkeypatch, tmp_path) -> None:
    """What this machine has of the hub decides nothing."""
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")


@pytest.mark.parametrize("name", PUBLISHED)
def test_published_language_models_have_their_published_counts(name) -> None:
    config, origins = model_config(changed(f"model.language={name}"), "sdpa")
    counts = parameter_counts(config)
    assert counts["language_model"] == PUBLISHED[name]
    assert counts["vision_tower"] == 412_987_248  # so400m without its head, see test_flops
    assert origins[1] == f"{name} (as published)"


def test_published_configs_are_those_of_the_hub(real_data: Path) -> None:
    configs = real_data / "model_configs"
    for name, file in (
        ("Qwen/Qwen2.5-0.5B-Instruct", "Qwen2.5-0.5B-Instruct.config.json"),
        ("Qwen/Qwen2.5-7B-Instruct", "Qwen2.5-7B-Instruct.config.json"),
    ):
        stored = json.loads((configs / file).read_text())
        known = published_language(name)
        assert known is not None
        assert known == {key: stored[key] for key in known}
    stored = json.loads((configs / "TRANSCRIBED_siglip-so400m-patch14-384.config.json").read_text())
    vision = published_vision("google/siglip-so400m-patch14-384")
    assert vision is not None
    assert vision == {key: stored["vision_config"][key] for key in vision}


def test_siglip_2_says_its_size_in_its_name() -> None:
    large = published_vision("google/siglip2-so400m-patch16-512")
    assert large is not None
    assert (large["patch_size"], large["image_size"], large["hidden_size"]) == (16, 512, 1152)
    assert AutoConfig.for_model(**large).num_hidden_layers == 27
    assert published_vision("google/siglip2-so400m-patch16-naflex") is None


def test_an_unknown_part_and_gpu_are_a_sentence() -> None:
    with pytest.raises(UserError, match=r"model\.language: the config of a/b is not known"):
        estimate_recipe(changed("model.language=a/b"), gpu="4090")
    with pytest.raises(UserError, match=r"--gpu 4091 is none of b200, h200, h100"):
        gpu_named("4091")


def test_every_gpu_has_a_peak() -> None:
    assert all(published_peak(gpu.device) for gpu in GPUS.values())
    assert gpu_named("A100-40").bytes == 40 * 2**30
    assert gpu_named("h200").bytes == 141 * 10**9


def test_operations_are_six_a_weight_and_token_but_for_attention() -> None:
    """Kaplan et al. 2020, of the language model's weights, its head among them."""
    recipe = changed()
    config, _ = model_config(recipe, "sdpa")
    stage = recipe.stages.vqa_sft
    tokens = 10**6
    work = Work(tokens=tokens, pairs=0, images=0, learned=tokens)
    found = stage_operations(config, stage, work, adapters=0, pictures=None, epochs=1)
    weights = PUBLISHED["Qwen/Qwen2.5-0.5B-Instruct"]
    assert found.needed == pytest.approx(6 * weights * tokens, rel=1e-3)
    # checkpointing repeats the layers, and not the head
    layers = weights - 151_936 * 896
    assert found.repeated == pytest.approx(2 * layers * tokens, rel=1e-3)
    seconds = (found.needed + found.repeated) / (312e12 * 0.35 * 2)
    assert hours(found, 312e12, 0.35, 2) == pytest.approx(seconds / 3600)


def test_a_checkpoint_is_as_large_as_told(tmp_path) -> None:
    folder = small_checkpoint(tmp_path)
    recipe = changed(recipe="tiny")
    counts = parameter_counts(model_config(recipe, "eager")[0])
    size = (folder / "model.safetensors").stat().st_size
    assert 4 * sum(counts.values()) == pytest.approx(size, rel=0.005)  # and its header


def test_a_state_holds_weights_and_moments() -> None:
    recipe = changed(recipe="tiny")
    full, lora = recipe.stages.vqa_sft, changed("stages.vqa_sft.adapter.rank=8", recipe="tiny")
    assert state_bytes(full, Weights(1000, 100)) == 4 * (1000 + 200)
    assert state_bytes(lora.stages.vqa_sft, Weights(1000, 100)) == 4 * 300


def test_a_stage_that_does_not_fit_says_what_to_turn() -> None:
    recipe = changed("model.language=Qwen/Qwen2.5-7B-Instruct")
    found = estimate_recipe(recipe, gpu="a100-80", stages=[Stage.VQA_SFT])
    (stage,) = found.stages
    assert stage.fits is False
    # float32 weights, gradients, two moments of what learns: 16 bytes a weight
    least = 16 * (PUBLISHED["Qwen/Qwen2.5-7B-Instruct"] + found.parameters["projector"])
    assert least < stage.memory.total < 1.3 * least
    turned = {turn.setting: turn for turn in stage.turns}
    assert turned["adapter.rank=16"].fits
    assert turned["adapter.rank=16 adapter.quantize=nf4"].bytes < turned["adapter.rank=16"].bytes
    assert not turned["batch_size=1 accumulation=4"].fits
    (sharing,) = (setting for setting in turned if "fsdp" in setting)
    assert sharing.endswith("distributed.processes=2")
    shared = recipe.changed([*sharing.split(), "compute.training.gpus=2"]).distributed
    assert shared.several  # and not one process, to which fsdp means nothing
    lines = estimate_lines(found)
    assert max(map(len, lines)) <= 100
    assert any("does not fit" in line for line in lines)


def test_what_a_recipe_bounds_and_what_it_knows() -> None:
    recipe = changed()
    found = estimate_recipe(recipe, gpu="4090", stages=[Stage.PROJECTOR_ALIGNMENT])
    (stage,) = found.stages
    assert (stage.steps.value, stage.steps.sure) == (1000, "known")
    assert (stage.tokens.value, stage.tokens.sure) == (1000 * 2 * 4 * 2048, "at most")
    assert stage.hours.sure == "at most"
    assert stage.disk.rows.sure == "unknown"
    assert stage.disk.checkpoint.value == 4 * sum(found.parameters.values())
