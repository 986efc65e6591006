"""A few layers stand for many; weights, quantized ones and states by arithmetic of their own."""

from __future__ import annotations

import pytest
from transformers import Qwen2Config

from siqvl.model.configuration import SiQVLConfig
from siqvl.recipe import Adapter
from siqvl.training.memory import step_memory as module
from siqvl.training.memory.batch_shape import BatchShape
from siqvl.training.memory.quantized_shape import quantized_bytes
from siqvl.training.memory.step_memory import Processes, parameter_counts, step_memory
from tests.training.memory.test_memory_estimate import made_stage

SHAPE = BatchShape(2, 96, 4, 48)


def deep_config(layers: int = 12) -> SiQVLConfig:
    vision = dict(hidden_size=48, intermediate_size=96, num_hidden_layers=5, image_size=32)
    vision |= dict(num_attention_heads=4, patch_size=8, model_type="siglip_vision_model")
    text = dict(hidden_size=64, intermediate_size=160, num_attention_heads=4, vocab_size=900)
    text |= dict(num_hidden_layers=layers, num_key_value_heads=2, tie_word_embeddings=True)
    config = SiQVLConfig(
        vision_config=vision, text_config=Qwen2Config(**text), image_token_id=899,
        pixel_shuffle_factor=2,
    )  # fmt: skip
    config._attn_implementation = "sdpa"
    return config


@pytest.mark.parametrize(
    ("options", "precision", "processes"),
    [
        ({}, "fp32", Processes()),
        ({"gradient_checkpointing": True, "accumulation": 2}, "bf16", Processes(on_gpu=True)),
        ({"adapter": Adapter(rank=4)}, "bf16", Processes(2, on_gpu=True)),
        ({"trainable": ["projector"]}, "fp32", Processes(4, True, True)),
    ],
)
def test_few_layers_stand_for_all(options, precision, processes, monkeypatch) -> None:
    config, stage = deep_config(), made_stage(**options)
    few = step_memory(config, stage, [SHAPE], precision, processes)
    monkeypatch.setattr(module, "_few", lambda config: None)
    assert few == step_memory(config, stage, [SHAPE], precision, processes)


def test_the_largest_of_some_batches_is_told() -> None:
    small, stage = BatchShape(2, 48, 2, 20), made_stage()
    config = deep_config(3)
    found = step_memory(config, stage, [small, SHAPE, small], "fp32")
    assert found.shape == SHAPE
    assert found == step_memory(config, stage, [SHAPE], "fp32")


def test_parts_of_a_step_are_weights_times_their_bytes() -> None:
    """Of a model small enough to count by hand: 12 layers of Qwen2, width 64."""
    attention = 64 * 64 + 64 + 2 * (64 * 32 + 32) + 64 * 64  # q, k and v with biases, o
    layer = attention + 3 * 64 * 160 + 2 * 64
    language = 900 * 64 + 12 * layer + 64
    counts = parameter_counts(deep_config())
    assert counts["language_model"] == language
    assert counts["projector"] == 4 * 48 * 64 + 64 + 2 * 64
    learning = language + counts["projector"]
    full = step_memory(deep_config(), made_stage(ema=0.9), [SHAPE], "fp32", Processes(2))
    assert full.gradients == full.ema == full.buckets == 4 * learning
    assert full.optimizer == 8 * learning
    shared = step_memory(deep_config(), made_stage(), [SHAPE], "fp32", Processes(4, True, True))
    assert shared.gradients == 4 * learning // 4
    lora = made_stage(adapter=Adapter(rank=4))
    adapted = step_memory(deep_config(), lora, [SHAPE], "bf16", Processes(on_gpu=True))
    # A and B of q, k, v, o, gate, up, down: in + out of each, times the rank
    ends = 2 * (64 + 64) + 2 * (64 + 32) + 3 * (64 + 160)
    assert adapted.gradients == 4 * (12 * 4 * ends + counts["projector"])
    # frozen linear layers in 16 bits, adapters and all else in 32
    linear = 12 * (attention + 3 * 64 * 160)
    kept = 2 * linear + 4 * (language - linear) + 4 * 12 * 4 * ends
    assert adapted.weights["language_model"] == pytest.approx(kept, rel=1e-3)  # and buffers


def test_quantized_weights_take_what_their_papers_say() -> None:
    """QLoRA: 4 bits and 0.127 bits of doubly quantized scales a weight (arXiv:2305.14314, 3)."""
    weights = 3_584 * 18_944
    assert 8 * quantized_bytes(weights, 18_944, "nf4") / weights == pytest.approx(4.127, abs=0.001)
    assert quantized_bytes(weights, 18_944, "int8") == weights + 4 * 18_944
    stage = made_stage(adapter=Adapter(rank=4, quantize="nf4"))
    on_gpu = Processes(on_gpu=True)
    small = step_memory(deep_config(), stage, [SHAPE], "bf16", on_gpu)
    plain = made_stage(adapter=Adapter(rank=4))
    large = step_memory(deep_config(), plain, [SHAPE], "bf16", on_gpu)
    saved = large.weights["language_model"] - small.weights["language_model"]
    products = 12 * (2 * 64 * 64 + 2 * 64 * 32 + 3 * 64 * 160)
    # of 16 bits 4.127 are left, and two tables of 1088 bytes a layer's matrix
    tables = 12 * 7 * 1088
    biases = 12 * 2 * (64 + 2 * 32)  # stay in 32 bits
    assert saved + tables + biases == pytest.approx(products * (16 - 4.127) / 8, rel=0.02)
