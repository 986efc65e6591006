"""SiQVLConfig: the pixel shuffle it derives, what it refuses, and full-size meta-device shapes.

Parameter counts are the published ones (data README), asserted on transformers' own classes first.
"""

import json

import pytest
import torch
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    CLIPVisionConfig,
    LlamaConfig,
    Qwen2Config,
    SiglipConfig,
    SiglipVisionModel,
)

from siqvl.model import SiQVLConfig, build_on_meta, derive_pixel_shuffle_factor
from tests.model.published_sizes import (
    QWEN3_06B,
    QWEN3_4B,
    QWEN3_17B,
    QWEN_05B,
    QWEN_3B,
    QWEN_7B,
    QWEN_15B,
    SIGLIP2_BASE,
    SO400M,
    text_config,
)
from tests.model.tiny_siqvl import tiny_config, tiny_text_config, tiny_vision_config


@pytest.mark.parametrize(
    ("grid", "budget", "factor", "tokens"),
    [
        (27, 256, 3, 81),  # so400m-384
        (27, 80, 9, 9),
        (16, 16, 4, 16),
        (16, 64, 2, 64),
        (16, 63, 4, 16),
        (14, 256, 2, 49),  # base-224: already below the budget, still shuffled
        (32, 256, 2, 256),
        (24, 100, 3, 64),
    ],
)
def test_the_smallest_divisor_within_the_budget_is_taken(grid, budget, factor, tokens):
    assert derive_pixel_shuffle_factor(grid, budget) == factor
    config = SiQVLConfig(
        vision_config=tiny_vision_config(image_size=grid * 4),
        text_config=tiny_text_config(),
        image_token_id=300,
        max_image_tokens=budget,
    )
    assert (config.patch_grid, config.pixel_shuffle_factor) == (grid, factor)
    assert config.tokens_per_image == tokens
    assert config.projector_input_size == 16 * factor * factor


@pytest.mark.parametrize(("grid", "budget"), [(37, 256), (7, 256), (27, 8), (9, 8)])
def test_a_grid_that_admits_no_factor_is_named_with_the_budget(grid, budget):
    with pytest.raises(ValueError, match=rf"{grid}x{grid}.*max_image_tokens={budget} "):
        tiny_config(vision=dict(image_size=grid * 4), max_image_tokens=budget)


def test_an_explicit_factor_must_divide_the_grid():
    with pytest.raises(ValueError, match=r"pixel_shuffle_factor=3 .*side 4\."):
        tiny_config(pixel_shuffle_factor=3)
    with pytest.raises(ValueError, match=r"pixel_shuffle_factor=0 "):
        tiny_config(pixel_shuffle_factor=0)


def test_an_explicit_factor_is_free_of_the_budget():
    assert tiny_config(pixel_shuffle_factor=1, max_image_tokens=4).tokens_per_image == 16
    assert tiny_config(pixel_shuffle_factor=4).tokens_per_image == 1
    assert tiny_config(vision=dict(image_size=28), pixel_shuffle_factor=7).tokens_per_image == 1


def test_a_placeholder_outside_the_vocabulary_is_refused():
    with pytest.raises(ValueError, match=r"image_token_id=320 .* 320 tokens"):
        tiny_config(image_token_id=320)


def test_other_families_are_refused():
    with pytest.raises(ValueError, match=r"vision_config has model_type 'clip_vision_model'"):
        SiQVLConfig(vision_config=CLIPVisionConfig())
    with pytest.raises(ValueError, match=r"model has model_type 'llama'; supported are .*'qwen3'"):
        build_on_meta(SiQVLConfig(text_config=LlamaConfig(vocab_size=151_936)))


def test_non_square_images_are_refused():
    with pytest.raises(ValueError, match=r"image_size must be one int"):
        tiny_config(vision=dict(image_size=[16, 32]))


def test_round_trip_keeps_every_value(tmp_path):
    config = tiny_config(max_image_tokens=4)
    config.save_pretrained(tmp_path)
    again = AutoConfig.from_pretrained(tmp_path)
    again.save_pretrained(tmp_path / "again")
    assert isinstance(again, SiQVLConfig)
    assert json.loads((tmp_path / "config.json").read_text())["pixel_shuffle_factor"] == 2
    first, second = (folder / "config.json" for folder in (tmp_path, tmp_path / "again"))
    assert first.read_bytes() == second.read_bytes()


@pytest.mark.parametrize("tied", [True, False])
def test_tying_follows_the_text_config_unless_said_otherwise(tied):
    assert tiny_config(text=dict(tie_word_embeddings=tied)).tie_word_embeddings is tied
    config = tiny_config(text=dict(tie_word_embeddings=tied), tie_word_embeddings=not tied)
    assert config.tie_word_embeddings is not tied
    assert config.text_config.tie_word_embeddings is not tied


def test_the_callers_vision_config_keeps_its_head():
    vision = tiny_vision_config()
    assert SiQVLConfig(vision_config=vision, text_config=tiny_text_config(), image_token_id=300)
    assert vision.vision_use_head is True


def read(folder, name) -> dict:
    return json.loads((folder / "model_configs" / name).read_text())


def count(model) -> int:
    return sum(parameter.numel() for parameter in model.parameters())


# The published counts of towers include the pooling head (attention, MLP, probe), which serves
# contrastive scoring; our tower is built without it, so it is 15.2 M and 7.1 M smaller.
@pytest.mark.parametrize(
    ("sizes", "published", "ours"),
    [(SO400M, 428_225_600, 412_987_248), (SIGLIP2_BASE, 92_884_224, 85_797_120)],
    ids=["so400m", "siglip2 base"],
)
def test_published_tower_sizes(sizes, published, ours):
    vision = SiglipConfig(vision_config=sizes).vision_config
    with torch.device("meta"):
        assert count(SiglipVisionModel(vision)) == published
    model = build_on_meta(SiQVLConfig(vision_config=vision))
    assert count(model.model.vision_tower) == ours
    assert not any("head" in key for key in model.model.vision_tower.state_dict())


# Every weight once. The files of Qwen3-0.6B and 1.7B hold their tied head as well, so the hub says
# 751,632,384 and 2,031,739,904 of them. Model cards round: 0.49 B, 1.54 B, 3.09 B and 7.61 B of
# Qwen2.5; 0.6 B, 1.7 B and 4.0 B of Qwen3, of which 0.44 B, 1.4 B and 3.6 B are no embeddings.
@pytest.mark.parametrize(
    ("sizes", "published", "beside_embeddings"),
    [
        (QWEN_05B, 494_032_768, 0.36e9),
        (QWEN_15B, 1_543_714_304, 1.31e9),
        (QWEN_3B, 3_085_938_688, 2.77e9),
        (QWEN_7B, 7_615_616_512, 6.53e9),
        (QWEN3_06B, 596_049_920, 0.44e9),
        (QWEN3_17B, 1_720_574_976, 1.4e9),
        (QWEN3_4B, 4_022_468_096, 3.6e9),
    ],
    ids=["0.5B", "1.5B", "3B", "7B", "Qwen3 0.6B", "Qwen3 1.7B", "Qwen3 4B"],
)
def test_published_language_sizes(sizes, published, beside_embeddings):
    text = text_config(sizes)
    with torch.device("meta"):
        assert count(AutoModelForCausalLM.from_config(text)) == published
    so400m = SiglipConfig(vision_config=SO400M).vision_config
    model = build_on_meta(SiQVLConfig(vision_config=so400m, text_config=text))
    embeddings = model.get_input_embeddings().weight
    assert (model.lm_head.weight is embeddings) is text.tie_word_embeddings  # counted once
    head = 0 if text.tie_word_embeddings else model.lm_head.weight.numel()
    assert count(model.model.language_model) + head == published
    assert published - embeddings.numel() - head == pytest.approx(beside_embeddings, rel=0.02)
    width = text.hidden_size
    projector = 9 * 1_152 * width + 3 * width  # weight, bias; gain and shift of the norm
    assert count(model) == 412_987_248 + projector + published


def test_the_sizes_are_those_of_the_published_files(real_data):
    towers = {
        "TRANSCRIBED_siglip-so400m-patch14-384.config.json": SO400M,
        "TRANSCRIBED_siglip2-base-patch16-224.config.json": SIGLIP2_BASE,
    }
    for name, sizes in towers.items():
        assert read(real_data, name)["vision_config"] == sizes
    languages = {
        "Qwen2.5-0.5B-Instruct.config.json": QWEN_05B,
        "TRANSCRIBED_Qwen2.5-1.5B-Instruct.config.json": QWEN_15B,
        "Qwen2.5-7B-Instruct.config.json": QWEN_7B,
    }
    for name, sizes in languages.items():
        assert read(real_data, name).items() >= sizes.items()


def test_full_size_shapes():
    config = SiQVLConfig(
        vision_config=SiglipConfig(vision_config=SO400M).vision_config,
        text_config=Qwen2Config(**QWEN_05B),
    )
    model = build_on_meta(config)
    seen = {}
    projector = model.model.multi_modal_projector
    model.model.vision_tower.register_forward_hook(
        lambda module, args, out: seen.update(tower=tuple(out.last_hidden_state.shape))
    )
    projector.linear.register_forward_hook(
        lambda module, args, out: seen.update(linear_in=tuple(args[0].shape))
    )
    images = model.get_image_features(torch.zeros(2, 3, 384, 384, device="meta"))
    assert seen == {"tower": (2, 729, 1152), "linear_in": (2, 81, 10368)}
    assert tuple(images.pooler_output.shape) == (2, 81, 896)
    assert count(projector) == 10368 * 896 + 896 + 2 * 896
    assert count(model) == 412_987_248 + 494_032_768 + count(projector)
