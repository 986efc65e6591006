"""What of the model llama.cpp's projectors can express, and what one of them would need.

Read in ggml-org/llama.cpp: tools/mtmd/models/siglip.cpp at 81d97df, models/llava.cpp at 623ea2b,
`clip_graph::build_patch_merge_permute` in clip.cpp. llama.cpp itself is not here: its operations
stand below in PyTorch, written from those files, in the shapes that ggml has.
"""

import math

import pytest
import torch
from torch.nn import functional as F
from transformers import AutoModelForCausalLM

from siqvl.model import load_checkpoint, pixel_shuffle
from tests.model.tiny_siqvl import encode, picture

PROMPTS = 20
OURS = 1e-5  # of nn.LayerNorm; llama.cpp's `hparams.eps` is the tower's
TOWERS = 1e-6


def ggml_reshape(tensor: torch.Tensor, *ne: int) -> torch.Tensor:
    """ggml names the fastest dimension first."""
    return tensor.contiguous().reshape(*reversed(ne))


def ggml_permute(tensor: torch.Tensor, *axes: int) -> torch.Tensor:
    """Dimension i of the source becomes dimension axes[i], counted as ggml does."""
    last = tensor.ndim - 1
    order = [0] * tensor.ndim
    for source, target in enumerate(axes[: tensor.ndim]):
        order[last - target] = last - source
    return tensor.permute(order)


def patch_merge_permute(features: torch.Tensor, factor: int) -> torch.Tensor:
    """llama.cpp's pixel shuffle of one picture, [patches, hidden]."""
    hidden, side = features.shape[1], math.isqrt(len(features))
    found = ggml_reshape(features, hidden, side, side)
    found = ggml_reshape(found, hidden * factor, side // factor, side)
    found = ggml_permute(found, 0, 2, 1, 3)
    found = ggml_reshape(found, hidden * factor**2, side // factor, side // factor)
    found = ggml_permute(found, 0, 2, 1, 3)
    return ggml_reshape(found, hidden * factor**2, (side // factor) ** 2)


def ggml_rms_norm(hidden: torch.Tensor, eps: float) -> torch.Tensor:
    return hidden * (hidden.square().mean(-1, keepdim=True) + eps).rsqrt()


def ggml_norm(hidden: torch.Tensor, eps: float) -> torch.Tensor:
    centred = hidden - hidden.mean(-1, keepdim=True)
    return centred * (centred.square().mean(-1, keepdim=True) + eps).rsqrt()


def ggml_gelu(hidden: torch.Tensor) -> torch.Tensor:
    """The tanh form; from 10 on a number is itself."""
    return torch.where(hidden >= 10, hidden, F.gelu(hidden, approximate="tanh"))


@pytest.fixture
def trained(checkpoint):
    """A model whose projector is not as it starts: gain, shift and bias that all matter."""
    model, processor = load_checkpoint(checkpoint, attn_implementation="eager")
    torch.manual_seed(3)
    projector = model.model.multi_modal_projector
    with torch.no_grad():
        projector.norm.weight.mul_(torch.rand_like(projector.norm.weight) + 0.5)
        projector.norm.bias.normal_(std=float(projector.norm.weight.std()))
        projector.linear.bias.normal_()
    return model, processor


def centred(linear: torch.nn.Linear) -> tuple[torch.Tensor, torch.Tensor]:
    """The Linear with the LayerNorm's centring in it: what it gives has mean 0."""
    weight, bias = linear.weight, linear.bias
    return weight - weight.mean(0, keepdim=True), bias - bias.mean()


def idefics3(model, features: torch.Tensor) -> torch.Tensor:
    """PROJECTOR_TYPE_IDEFICS3 as it is: a shuffle and one Linear without a bias."""
    projector = model.model.multi_modal_projector
    return patch_merge_permute(features, projector.factor) @ projector.linear.weight.T


def folded(model, features: torch.Tensor) -> torch.Tensor:
    """The same followed by what is missing: a bias, an RMSNorm, its gain and its shift."""
    projector = model.model.multi_modal_projector
    weight, bias = centred(projector.linear)
    tokens = patch_merge_permute(features, projector.factor) @ weight.T + bias
    return ggml_rms_norm(tokens, OURS) * projector.norm.weight + projector.norm.bias


def through_gelu(model, features: torch.Tensor) -> torch.Tensor:
    """PROJECTOR_TYPE_ETET behind a shuffle: Linear, GELU, Linear, LayerNorm.

    A bias lifts all that the first Linear gives above 10, where GELU is the identity, and the
    second one takes it back. Its LayerNorm has the tower's eps: scaling what it is given by the
    root of their ratio makes that ours.
    """
    projector = model.model.multi_modal_projector
    tokens = patch_merge_permute(features, projector.factor)
    scale = (TOWERS / OURS) ** 0.5
    weight, bias = (scale * one for one in centred(projector.linear))
    lift = 10 + float((tokens @ weight.T + bias).abs().max())
    raised = ggml_gelu(tokens @ weight.T + (bias + lift))
    lowered = raised @ torch.eye(len(bias)) - lift
    return ggml_norm(lowered, TOWERS) * projector.norm.weight + projector.norm.bias


@torch.no_grad()
def test_pixel_shuffle_has_the_same_order() -> None:
    generator = torch.Generator().manual_seed(0)
    for side, factor in ((4, 2), (8, 4), (27, 3), (6, 2)):
        features = torch.randn(1, side * side, 5, generator=generator)
        assert torch.equal(
            patch_merge_permute(features[0], factor), pixel_shuffle(features, factor)[0]
        )


def logits_by(model, processor, project, number: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Scores of a prompt with a picture by our projector, and by another one."""
    inputs = encode(processor, "what is " * (1 + number % 4) + "it?", [picture(number)])
    expected = model(**inputs).logits[0]
    features = model.model.get_vision_features(inputs["pixel_values"])[0]
    embeds = model.get_input_embeddings()(inputs["input_ids"])
    places = inputs["input_ids"] == model.config.image_token_id
    embeds[places] = project(model, features)
    found = model(inputs_embeds=embeds, attention_mask=inputs["attention_mask"]).logits[0]
    return expected, found


@torch.no_grad()
@pytest.mark.parametrize(("project", "most"), [(folded, 1e-4), (through_gelu, 5e-4)])
def test_the_folded_projector_gives_our_scores(trained, project, most: float) -> None:
    model, processor = trained
    furthest = 0.0
    for number in range(PROMPTS):
        expected, found = logits_by(model, processor, project, number)
        furthest = max(furthest, float((expected - found).abs().max()))
        assert torch.equal(expected.argmax(-1), found.argmax(-1))
    assert furthest < most


@torch.no_grad()
def test_idefics3_as_it_is_does_not(trained) -> None:
    model, processor = trained
    differences = []
    for number in range(PROMPTS):
        expected, found = logits_by(model, processor, idefics3, number)
        differences.append(float((expected[-1] - found[-1]).abs().max()))
    assert min(differences) > 0.1


@torch.no_grad()
def test_gain_and_shift_cannot_go_into_the_linear(trained) -> None:
    """The norm divides by what the Linear gives: nothing linear before it can stand for its gain,
    its shift or its scale. Inputs that differ by a factor alone come out (nearly) alike."""
    projector = trained[0].model.multi_modal_projector
    tokens = torch.randn(7, projector.linear.in_features)
    bias, projector.linear.bias.data = projector.linear.bias.data, torch.zeros(32)
    once, twice = (projector.norm(projector.linear(scale * tokens)) for scale in (1.0, 2.0))
    projector.linear.bias.data = bias
    assert (once - twice).abs().max() < 1e-3 * once.abs().max()


@torch.no_grad()
def test_the_language_model_stands_alone(family_checkpoint, tmp_path) -> None:
    """The commands of docs/elsewhere.md that write what llama.cpp's own converter reads."""
    model, processor = load_checkpoint(family_checkpoint)
    language = AutoModelForCausalLM.from_config(model.config.text_config)
    weights = model.model.language_model.state_dict()
    language.model.load_state_dict(weights)
    language.lm_head.load_state_dict(model.lm_head.state_dict())
    language.save_pretrained(tmp_path)
    again = AutoModelForCausalLM.from_pretrained(tmp_path).eval()
    inputs = encode(processor, "what is it?")
    assert torch.equal(again(**inputs).logits, model(**inputs).logits)
