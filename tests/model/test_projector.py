"""Pixel shuffle against Idefics3's, InternVL's and a hand-worked grid; the projector's start."""

import pytest
import torch
from transformers.models.idefics3.modeling_idefics3 import Idefics3Connector
from transformers.models.internvl.modeling_internvl import InternVLModel

from siqvl.model import (
    SiQVLForConditionalGeneration,
    SiQVLProjector,
    build_on_meta,
    pixel_shuffle,
)
from tests.model.tiny_siqvl import tiny_config

SIZES = [(4, 2), (4, 4), (6, 3), (8, 2), (16, 4), (27, 3)]


@pytest.mark.parametrize(("side", "factor"), SIZES)
def test_equal_to_idefics3(side, factor):
    features = torch.randn(3, side * side, 5)
    reference = Idefics3Connector.pixel_shuffle(None, features, factor)
    assert torch.equal(pixel_shuffle(features, factor), reference)


@pytest.mark.parametrize(("side", "factor"), [size for size in SIZES if size[1] in (2, 4)])
def test_equal_to_internvl(side, factor):
    # InternVL takes 1/r as a float; 1/3 rounds the wrong way there, so powers of two only.
    features = torch.randn(3, side * side, 8)
    grid = features.view(3, side, side, 8)
    reference = InternVLModel.pixel_shuffle(None, grid, 1 / factor).flatten(1, 2)
    assert torch.equal(pixel_shuffle(features, factor), reference)


def test_a_4x4_grid_by_hand():
    # Patch k holds (k, 100 + k). Rows: 0 1 2 3 / 4 5 6 7 / 8 9 10 11 / 12 13 14 15.
    numbers = torch.arange(16)
    features = torch.stack([numbers, 100 + numbers], dim=-1)[None]
    expected = [
        [0, 100, 1, 101, 4, 104, 5, 105],
        [2, 102, 3, 103, 6, 106, 7, 107],
        [8, 108, 9, 109, 12, 112, 13, 113],
        [10, 110, 11, 111, 14, 114, 15, 115],
    ]
    assert pixel_shuffle(features, 2)[0].tolist() == expected


def test_nothing_is_lost_or_mixed_between_images():
    features = torch.randn(2, 36, 4)
    shuffled = pixel_shuffle(features, 3)
    assert shuffled.shape == (2, 4, 36)
    for image in range(2):
        assert torch.equal(shuffled[image].flatten().sort()[0], features[image].flatten().sort()[0])
        assert torch.equal(shuffled[image], pixel_shuffle(features[image : image + 1], 3)[0])


def test_factor_one_changes_nothing():
    features = torch.randn(2, 16, 4)
    assert torch.equal(pixel_shuffle(features, 1), features)


def test_refusals_name_both_numbers():
    with pytest.raises(ValueError, match=r"factor 3 does not divide the grid side 4"):
        pixel_shuffle(torch.zeros(1, 16, 2), 3)
    with pytest.raises(ValueError, match=r"square grid, got 15 patches \(nearest: 4x4\)"):
        pixel_shuffle(torch.zeros(1, 15, 2), 2)


def test_projector_is_shuffle_linear_layernorm():
    projector = SiQVLProjector(tiny_config())
    torch.nn.init.normal_(projector.norm.weight)
    torch.nn.init.normal_(projector.norm.bias)
    features = torch.randn(3, 16, 16)
    shuffled = Idefics3Connector.pixel_shuffle(None, features, 2)
    hidden = shuffled @ projector.linear.weight.T + projector.linear.bias
    mean, variance = hidden.mean(-1, keepdim=True), hidden.var(-1, keepdim=True, unbiased=False)
    expected = (hidden - mean) / torch.sqrt(variance + 1e-5)
    expected = expected * projector.norm.weight + projector.norm.bias
    torch.testing.assert_close(projector(features), expected)


def test_projector_reads_features_of_another_dtype():
    projector = SiQVLProjector(tiny_config())
    assert projector(torch.randn(1, 16, 16, dtype=torch.bfloat16)).dtype == torch.float32


@torch.no_grad()
def test_image_tokens_start_at_the_scale_of_text():
    torch.manual_seed(0)
    model = SiQVLForConditionalGeneration(tiny_config())
    images = model.get_image_features(torch.randn(8, 3, 16, 16)).pooler_output
    text = model.get_input_embeddings().weight
    assert images.pow(2).mean().sqrt() == pytest.approx(0.02, rel=0.01)
    assert text.pow(2).mean().sqrt() == pytest.approx(0.02, rel=0.05)
    linear = model.model.multi_modal_projector.linear
    assert linear.weight.std() == pytest.approx(64**-0.5, rel=0.05)
    assert not linear.bias.any()


def test_build_on_meta_takes_no_memory():
    model = build_on_meta(tiny_config())
    assert {parameter.device.type for parameter in model.parameters()} == {"meta"}
