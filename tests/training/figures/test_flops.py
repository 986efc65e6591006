"""Counted operations against torch's own counter, and against published parameter counts."""

import numpy as np
import pytest
import torch
from peft.tuners.lora import Linear
from torch.utils.flop_counter import FlopCounterMode
from transformers import AutoConfig

from siqvl.adapters.attach import adapted, attach
from siqvl.model.assemble import build_on_meta
from siqvl.model.configuration import SiQVLConfig
from siqvl.model.decoders import DECODERS
from siqvl.model.modeling import SiQVLForConditionalGeneration
from siqvl.recipe import Adapter
from siqvl.stages import freeze
from siqvl.training.figures.flops import TrainingFlops
from siqvl.training.figures.work import Work
from tests.model.published_sizes import QWEN3_06B, QWEN3_4B, QWEN3_17B, QWEN_05B, SO400M

EVERYTHING = ["vision_tower", "projector", "language_model"]
TRAINABLE = [
    ["projector"],
    ["language_model"],
    ["vision_tower"],
    ["projector", "language_model"],
    ["vision_tower", "projector"],
    EVERYTHING,
]
ROWS, LENGTH, IMAGES, LEARNED = 3, 40, 4, 17


@pytest.fixture(scope="module", params=sorted(DECODERS))
def config(request) -> SiQVLConfig:
    """Uneven sizes, so that no two products cost the same; heads wider than hidden / heads."""
    vision = dict(hidden_size=48, intermediate_size=112, num_hidden_layers=3, image_size=32)
    vision |= dict(num_attention_heads=4, patch_size=8, model_type="siglip_vision_model")
    text = dict(hidden_size=64, intermediate_size=176, num_hidden_layers=5, num_attention_heads=6)
    text |= dict(num_key_value_heads=2, head_dim=24, vocab_size=320, tie_word_embeddings=True)
    return SiQVLConfig(
        vision_config=vision, text_config=AutoConfig.for_model(request.param, **text),
        image_token_id=300, pixel_shuffle_factor=2,
    )  # fmt: skip


def counted(
    config: SiQVLConfig,
    trainable: list,
    *,
    cached: bool,
    checkpointing: bool,
    adapter: Adapter | None = None,
) -> int:
    """What torch counts in a step of the real model; eager attention computes full squares."""
    torch.manual_seed(0)
    model = SiQVLForConditionalGeneration._from_config(config, attn_implementation="eager").train()
    freeze(model, trainable)
    if adapter is not None:
        attach(model, adapter)
        for layer in adapted(model).values():
            layer.__class__ = Linear  # PEFT's: torch counts no product that is added in place
    if checkpointing:
        model.activation_checkpointing_enable({"use_reentrant": False})
        model.train()
    ids = torch.randint(0, 200, (ROWS, LENGTH))
    ids[:2, : IMAGES // 2 * config.tokens_per_image] = config.image_token_id
    pictures = (
        {"vision_features": torch.rand(IMAGES, config.patch_grid**2, 48)}
        if cached
        else {"pixel_values": torch.rand(IMAGES, 3, 32, 32)}
    )
    with FlopCounterMode(display=False) as counter:
        hidden = model.model(input_ids=ids, use_cache=False, **pictures).last_hidden_state
        logits = model.lm_head(hidden.flatten(0, 1)[:LEARNED])
        logits.logsumexp(-1).sum().backward()
    return counter.get_total_flops()


@pytest.mark.parametrize(
    ("trainable", "cached"),
    [(parts, False) for parts in TRAINABLE]
    + [(parts, True) for parts in TRAINABLE if "vision_tower" not in parts],
)
def test_a_step_costs_what_torch_counts(config, trainable, cached) -> None:
    work = Work(ROWS * LENGTH, ROWS * LENGTH**2, IMAGES, LEARNED)
    flops = TrainingFlops(config, trainable, cached_features=cached).of(work)
    assert flops == counted(config, trainable, cached=cached, checkpointing=False)


def test_adapters_cost_what_torch_counts(config) -> None:
    """The language model is gone through twice, its adapters three times."""
    adapter = Adapter(rank=8)
    count = attach(build_on_meta(config), adapter)
    work = Work(ROWS * LENGTH, ROWS * LENGTH**2, IMAGES, LEARNED)
    flops = TrainingFlops(config, ["projector", "language_model"], adapter_weights=count).of(work)
    assert flops == counted(
        config, ["projector"], cached=False, checkpointing=False, adapter=adapter
    )


def test_what_is_frozen_costs_less(config) -> None:
    work = Work(ROWS * LENGTH, ROWS * LENGTH**2, IMAGES, LEARNED)
    stage1 = TrainingFlops(config, ["projector"])
    full = TrainingFlops(config, EVERYTHING)
    assert stage1.token == 2 * stage1.forward.layers
    assert full.token == 3 * full.forward.layers
    assert full.pair == stage1.pair == 3 * full.forward.scores
    cached = TrainingFlops(config, ["projector"], cached_features=True)
    forward = stage1.forward
    assert stage1.of(work) - cached.of(work) == IMAGES * (
        forward.patches + forward.tower + forward.tower_scores
    )


def test_arrays_are_counted_entry_by_entry(config) -> None:
    flops = TrainingFlops(config, EVERYTHING)
    each = flops.of(Work(*(np.array([[3, 5], [6, 15], [0, 1], [1, 2]], np.int64))))
    assert each.tolist() == [flops.of(Work(3, 6, 0, 1)), flops.of(Work(5, 15, 1, 2))]


@pytest.fixture(scope="module")
def published() -> SiQVLConfig:
    """so400m-384 and Qwen2.5-0.5B."""
    return SiQVLConfig(vision_config=SO400M, text_config=AutoConfig.for_model(**QWEN_05B))


def test_published_models_cost_6_operations_a_parameter_and_token(published) -> None:
    flops = TrainingFlops(published, EVERYTHING)
    # Qwen2.5's model card: 0.49B parameters, 0.36B without embedding
    assert flops.token == pytest.approx(6 * 0.36e9, rel=0.01)
    assert flops.token + flops.learned == pytest.approx(6 * 494_032_768, rel=0.001)
    # so400m without its pooling head, see `SiQVLModel`; its positions multiply nothing
    assert flops.image - 3 * flops.forward.projector == pytest.approx(
        6 * 412_987_248 * 729 + 3 * flops.forward.tower_scores, rel=0.005
    )
    model = build_on_meta(published)
    linears = [part for part in model.modules() if isinstance(part, torch.nn.Linear)]
    language = sum(one.weight.numel() for one in linears if one.out_features != 151_936)
    tower = sum(
        one.weight.numel()
        for one in model.model.vision_tower.modules()
        if isinstance(one, torch.nn.Linear)
    )
    projector = model.model.multi_modal_projector.linear.weight.numel()
    assert flops.token == 6 * (language - tower - projector)
    assert flops.forward.tower == 2 * 729 * tower
    assert flops.forward.projector == 2 * 81 * projector


@pytest.mark.parametrize(
    ("sizes", "beside_embeddings"), [(QWEN3_06B, 0.44e9), (QWEN3_17B, 1.4e9), (QWEN3_4B, 3.6e9)]
)
def test_published_qwen3_costs_6_operations_a_parameter_and_token(sizes, beside_embeddings):
    """Its model cards' parameters without embeddings, and the weights of its linear layers."""
    config = SiQVLConfig(vision_config=SO400M, text_config=AutoConfig.for_model(**sizes))
    flops = TrainingFlops(config, EVERYTHING)
    assert flops.token == pytest.approx(6 * beside_embeddings, rel=0.02)
    layers = build_on_meta(config).model.language_model.layers
    linears = [one for one in layers.modules() if isinstance(one, torch.nn.Linear)]
    assert flops.token == 6 * sum(one.weight.numel() for one in linears)
