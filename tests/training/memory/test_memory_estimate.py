"""Memory that is foretold against memory that a real step takes, tensor by tensor."""

import logging
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from transformers import AutoConfig

from siqvl.model.configuration import SiQVLConfig
from siqvl.model.modeling import SiQVLForConditionalGeneration
from siqvl.recipe import Recipe, SFTStage
from siqvl.stages import freeze
from siqvl.training.loop.embedding import add_embedding_gradient_in_place
from siqvl.training.memory import batch_memory as memory
from siqvl.training.memory.batch_memory import estimate_memory, tell_memory
from siqvl.training.memory.batch_shape import BatchShape
from siqvl.training.memory.live_bytes import LiveBytes
from siqvl.training.memory.memory_estimate import GIB, MemoryEstimate
from tests.model.published_sizes import QWEN_05B, SO400M

EVERYTHING = ["vision_tower", "projector", "language_model"]


def made_config(attention: str = "sdpa", decoder: str = "qwen2") -> SiQVLConfig:
    vision = dict(hidden_size=48, intermediate_size=96, num_hidden_layers=1, image_size=32)
    vision |= dict(num_attention_heads=4, patch_size=8, model_type="siglip_vision_model")
    text = dict(hidden_size=64, intermediate_size=160, num_hidden_layers=2, num_attention_heads=4)
    text |= dict(num_key_value_heads=2, vocab_size=4000, tie_word_embeddings=True)
    if decoder == "qwen3":
        text |= dict(head_dim=24)  # wider than hidden / heads
    config = SiQVLConfig(
        vision_config=vision, text_config=AutoConfig.for_model(decoder, **text),
        image_token_id=3999, pixel_shuffle_factor=2,
    )  # fmt: skip
    config._attn_implementation = attention
    return config


def made_stage(**values) -> SFTStage:
    common = {"trainable": ["projector", "language_model"], "accumulation": 1, "max_steps": 1}
    return SFTStage(sources=[{"kind": "made"}], learning_rate=1e-3, **common | values)


def step(model, shape: BatchShape, stage: SFTStage, precision: str) -> int:
    """Most bytes alive during a real step, forward and backward, beside weights."""
    config = model.config
    ids = torch.randint(0, 3900, (shape.rows, shape.width))
    for image in range(shape.images):
        row, place = divmod(image, -(-shape.images // shape.rows))
        first = place * config.tokens_per_image
        ids[row, first : first + config.tokens_per_image] = config.image_token_id
    labels = torch.full_like(ids, -100)
    each = shape.learned // shape.rows
    labels[:, -each:] = ids[:, -each:]
    positions = (torch.arange(shape.width) % (shape.width // 2)).expand(shape.rows, -1)
    size = config.vision_config.image_size
    with LiveBytes() as live:
        if stage.accumulation > 1:
            for one in model.parameters():
                one.grad = torch.zeros_like(one) if one.requires_grad else None
        batch = {"input_ids": ids.clone(), "labels": labels.clone()}
        batch["position_ids"] = positions.clone()
        if stage.cached_features:
            dtype = torch.bfloat16 if precision == "bf16" else torch.float32
            batch["vision_features"] = torch.rand(shape.images, 16, 48).to(dtype)
        else:
            batch["pixel_values"] = torch.rand(shape.images, 3, size, size)
        with torch.autocast("cpu", torch.bfloat16) if precision == "bf16" else nullcontext():
            outputs = model(**batch, use_cache=False, head_chunk=stage.head_chunk)
            loss = -outputs.log_probs.sum()
        del outputs, batch
        loss.backward()
    return max(live.timeline)


@pytest.mark.parametrize(
    ("rows", "options", "precision", "attention", "decoder"),
    [
        (1, {}, "fp32", "sdpa", "qwen2"),
        (8, {}, "bf16", "sdpa", "qwen2"),
        (3, {}, "fp32", "eager", "qwen2"),
        (3, {"trainable": ["projector"]}, "fp32", "sdpa", "qwen2"),
        (1, {"trainable": EVERYTHING, "gradient_checkpointing": True}, "fp32", "sdpa", "qwen2"),
        (8, {"trainable": EVERYTHING}, "fp32", "sdpa", "qwen2"),
        (4, {"accumulation": 2}, "fp32", "sdpa", "qwen2"),
        (8, {"head_chunk": 32}, "fp32", "sdpa", "qwen2"),
        (3, {"cached_features": True, "gradient_checkpointing": True}, "bf16", "sdpa", "qwen2"),
        (8, {}, "bf16", "sdpa", "qwen3"),
        (3, {"trainable": EVERYTHING, "gradient_checkpointing": True}, "fp32", "sdpa", "qwen3"),
    ],
)
def test_a_step_takes_what_was_foretold(rows, options, precision, attention, decoder) -> None:
    config, stage = made_config(attention, decoder), made_stage(**options)
    shape = BatchShape(rows, 96, 2 * rows, 24 * rows)
    estimate = estimate_memory(config, stage, shape, precision)
    torch.manual_seed(0)
    model = SiQVLForConditionalGeneration._from_config(config, attn_implementation=attention)
    freeze(model, stage.trainable)
    add_embedding_gradient_in_place(model)
    if stage.gradient_checkpointing:
        model.activation_checkpointing_enable({"use_reentrant": False})
    model.train()
    learning = sum(one.numel() for one in model.parameters() if one.requires_grad)
    assert estimate.gradients == 4 * learning
    assert estimate.optimizer == 8 * learning
    everything = sum(one.numel() for one in model.parameters())
    assert estimate.weights == pytest.approx(4 * everything, rel=0.01)  # and a few buffers
    real = step(model, shape, stage, precision)
    assert estimate.batch + estimate.gradients == pytest.approx(real, rel=0.03)


def test_what_a_batch_takes_grows_with_its_rows() -> None:
    """Rows that fit take the device's memory, and one more takes more."""
    config, stage = made_config(), made_stage()
    shape = BatchShape(2, 96, 4, 48)
    estimate = replace(estimate_memory(config, stage, shape, "fp32"), capacity=200 * 2**20)
    most = estimate.rows_that_fit
    assert most > 20
    for rows, fits in ((most, True), (most + 1, False)):
        # as many learned tokens as a chunk of logits takes
        larger = replace(shape.of_rows(rows), learned=stage.head_chunk)
        told = estimate_memory(config, stage, larger, "fp32")
        usable = 0.92 * 200 * 2**20
        assert (told.total <= usable * (1.001 if fits else 0.999)) == fits


def made_estimate(**values) -> MemoryEstimate:
    lines = [(0.0, 1.5 * GIB), (1.0 * GIB, 0.2 * GIB)]
    common = {"shape": BatchShape(2, 2048, 8, 500), "packed": True, "weights": 2 * GIB}
    common |= {"checkpointed": False}
    common |= {"gradients": GIB, "optimizer": 2 * GIB, "mean": 0, "buckets": 0, "device": "GPU"}
    return MemoryEstimate(
        **common | {"lines": lines, "full_lines": lines, "capacity": None} | values
    )


def test_the_line_says_what_takes_how_much_of_what() -> None:
    assert made_estimate(capacity=80 * GIB).line() == (
        "a batch of 2 packs of 2,048 tokens takes 3.0 GiB over 5.0 GiB for weights and optimizer: "
        "8.0 of 80 GiB GPU; about 45 packs would fit"  # (80 * 0.92 - 5) / 1.5
    )
    assert made_estimate().line().endswith("weights and optimizer: 8.0 GiB")
    assert made_estimate(capacity=80 * GIB).warning() is None


def test_too_large_a_batch_is_warned_of_with_what_to_change() -> None:
    estimate = made_estimate(capacity=7 * GIB)
    assert estimate.rows_that_fit == 0  # 7 * 0.92 - 5 is below 1.5
    said = estimate.warning()
    assert "8.0 of 7.0 GiB GPU; not one would fit" in said
    for key in ("batch_size", "pack_length", "head_chunk", "gradient_checkpointing: true"):
        assert key in said
    rows = made_estimate(capacity=7 * GIB, packed=False).warning()
    assert "2 rows of" in rows
    checkpointed = made_estimate(capacity=7 * GIB, checkpointed=True).warning()
    assert "gradient_checkpointing" not in checkpointed
    assert "pack" not in rows


def test_processes_send_copies_or_share_out() -> None:
    config, shape = made_config(), BatchShape(2, 96, 4, 48)
    alone = estimate_memory(config, made_stage(ema=0.9), shape, "fp32")
    several = estimate_memory(config, made_stage(), shape, "fp32", processes=4)
    shared = estimate_memory(config, made_stage(), shape, "fp32", processes=4, sharded=True)
    assert alone.buckets == 0
    assert alone.mean == several.buckets == alone.gradients
    assert [several.mean, shared.mean, shared.buckets] == [0, 0, 0]
    assert shared.optimizer == alone.optimizer // 4
    assert shared.weights == alone.weights // 4


def test_a_published_model_is_told_in_seconds() -> None:
    """so400m-384 and Qwen2.5-0.5B: no weights are there, or are made."""
    config = SiQVLConfig(vision_config=SO400M, text_config=AutoConfig.for_model(**QWEN_05B))
    config._attn_implementation = "sdpa"
    estimate = estimate_memory(config, made_stage(), BatchShape(2, 2048, 16, 2100), "bf16")
    # published parameter counts, see test_flops, and the projector's
    parameters = 412_987_248 + 494_032_768 + 10_368 * 896 + 3 * 896
    assert estimate.weights == pytest.approx(4 * parameters, rel=1e-3)
    # at least what the layers' products keep of each token in 16 bits: the inputs of q, k, v
    # together, of o, of gate and up together, and of down, and q, k, v themselves
    least = 24 * 2 * 2048 * (896 + 896 + 896 + 4864 + 896 + 2 * 128) * 2
    assert least < estimate.batch < 8 * least


def test_a_large_model_is_spoken_of_and_random_numbers_stay(caplog, monkeypatch) -> None:
    caplog.set_level(logging.INFO)
    recipe = Recipe.load(Path(__file__).parents[3] / "recipes" / "tiny.yaml")
    model = SiQVLForConditionalGeneration(made_config())
    shape = BatchShape(2, 96, 4, 48)
    tell_memory(model, shape, made_stage(), recipe, "fp32")
    assert not caplog.records
    monkeypatch.setattr(memory, "SMALL", 0)
    monkeypatch.setattr(memory, "device_memory", lambda: 1000)
    state = torch.get_rng_state()
    tell_memory(model, shape, made_stage(gradient_checkpointing=True), recipe, "fp32")
    assert torch.equal(torch.get_rng_state(), state)
    told, warned = caplog.records
    assert told.getMessage().startswith("a batch of 2 packs of 96 tokens takes")
    assert warned.levelname == "WARNING"
