"""SigLIP 2 of fixed resolutions: grids, tokens and pixels; what is another tower is named."""

import json
import shutil

import pytest
import torch
from transformers import Siglip2VisionConfig, SiglipConfig, SiglipVisionConfig

from siqvl.model import SiQVLConfig, assemble, build_on_meta
from siqvl.model.decoders import DECODERS
from tests.model.published_sizes import QWEN3_06B, SIGLIP2_BASE, SO400M, text_config
from tests.model.tiny_siqvl import encode, picture, tiny_text_config

#: google/siglip2-*: name, what differs from the base size or so400m, grid, factor at the default
#: budget of 256 tokens, tokens of a picture.
SO, BASE = SO400M, SIGLIP2_BASE
LARGE = BASE | dict(hidden_size=1_024, intermediate_size=4_096, num_hidden_layers=24)
LARGE |= dict(num_attention_heads=16, image_size=384)
GIANT = LARGE | dict(hidden_size=1_536, intermediate_size=6_144, num_hidden_layers=40)
TOWERS = [
    ("so400m-patch14-224", SO | {"image_size": 224}, 16, 2, 64),
    ("so400m-patch14-384", SO, 27, 3, 81),
    ("so400m-patch16-256", SO | {"patch_size": 16, "image_size": 256}, 16, 2, 64),
    ("so400m-patch16-384", SO | {"patch_size": 16}, 24, 2, 144),
    ("so400m-patch16-512", SO | {"patch_size": 16, "image_size": 512}, 32, 2, 256),
    ("base-patch16-224", BASE, 14, 2, 49),
    ("base-patch16-512", BASE | {"image_size": 512}, 32, 2, 256),
    ("large-patch16-384", LARGE, 24, 2, 144),
    ("giant-opt-patch16-384", GIANT, 24, 2, 144),
    ("base-patch32-256", BASE | {"image_size": 256, "patch_size": 32}, 8, 2, 16),
]


@pytest.mark.parametrize(
    ("sizes", "grid", "factor", "tokens"),
    [one[1:] for one in TOWERS],
    ids=[one[0] for one in TOWERS],
)
def test_published_towers_have_their_grids(sizes, grid, factor, tokens):
    vision = SiglipConfig(vision_config=sizes).vision_config
    config = SiQVLConfig(vision_config=vision, text_config=text_config(QWEN3_06B))
    assert (config.patch_grid, config.pixel_shuffle_factor) == (grid, factor)
    assert config.tokens_per_image == tokens
    assert config.projector_input_size == vision.hidden_size * factor**2
    model = build_on_meta(config)
    side = vision.image_size
    seen = model.get_image_features(torch.zeros(1, 3, side, side, device="meta"), return_dict=True)
    assert seen.last_hidden_state.shape == (1, grid**2, vision.hidden_size)
    assert seen.pooler_output.shape == (1, tokens, 1_024)


@pytest.mark.parametrize(
    ("budget", "factor", "tokens"), [(256, 2, 256), (255, 4, 64), (64, 4, 64), (63, 8, 16)]
)
def test_a_grid_of_32_has_three_foldings(budget, factor, tokens):
    vision = SiglipVisionConfig(image_size=512, patch_size=16)
    config = SiQVLConfig(
        vision_config=vision, text_config=text_config(QWEN3_06B), max_image_tokens=budget
    )
    assert (config.pixel_shuffle_factor, config.tokens_per_image) == (factor, tokens)


def test_siglip2s_own_processor_settings_are_kept(parts, tmp_path):
    """SigLIP 2 resizes bilinearly, SigLIP bicubically: its file says so, and a checkpoint too."""
    vision = shutil.copytree(parts[0], tmp_path / "vision")
    file = vision / "preprocessor_config.json"
    settings = json.loads(file.read_text())
    file.write_text(json.dumps(settings | {"resample": 2, "do_convert_rgb": None}))
    _, bicubic = assemble(*parts, init="config")
    _, bilinear = assemble(vision, parts[1], init="config")
    found, other = (
        encode(one, "what?", [picture(0)])["pixel_values"] for one in (bilinear, bicubic)
    )
    assert found.shape == other.shape == (1, 3, 16, 16)
    assert not torch.equal(found, other)
    image = picture(0).resize((16, 16), resample=2)
    pixels = torch.frombuffer(bytearray(image.tobytes()), dtype=torch.uint8).view(16, 16, 3)
    expected = (pixels.permute(2, 0, 1) / 255 - 0.5) / 0.5
    torch.testing.assert_close(found[0], expected, atol=1e-5, rtol=0)
    bilinear.save_pretrained(tmp_path / "saved")
    again = type(bilinear).from_pretrained(tmp_path / "saved")
    assert torch.equal(encode(again, "what?", [picture(0)])["pixel_values"], found)


def test_the_vision_half_of_siglip2_of_any_size_is_named(parts, tmp_path):
    Siglip2VisionConfig().save_pretrained(tmp_path)
    with pytest.raises(ValueError, match=r"'siglip2_vision_model', .* SigLIP 2 NaFlex, which"):
        assemble(tmp_path, parts[1])


def test_an_image_processor_of_another_tower_is_named(parts, tmp_path):
    vision = shutil.copytree(parts[0], tmp_path / "vision")
    settings = {"image_processor_type": "Siglip2ImageProcessor", "patch_size": 4}
    (vision / "preprocessor_config.json").write_text(json.dumps(settings))
    with pytest.raises(ValueError, match=r"image processor \(Siglip2\w+\) makes pictures of size"):
        assemble(vision, parts[1])


def test_a_tower_is_no_language_model(parts):
    assert tiny_text_config().model_type in DECODERS
    with pytest.raises(ValueError, match=r"'siglip', which is no language model"):
        assemble(parts[0], parts[0])
