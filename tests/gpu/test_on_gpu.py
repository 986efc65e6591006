"""What only a GPU shows: its kernels, in bfloat16 and by flash-attention, beside a CPU's float32.

Rounding to bfloat16 keeps 8 bits. Of the tiny model with random weights, log-probabilities in
bfloat16 on a CPU are at most 0.043 from those in float32; a GPU sums in another order.
"""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path
from queue import SimpleQueue

import pytest
import torch
from safetensors.torch import load_file

from siqvl.checkpoint import read_history
from siqvl.data.collate import PackedCollator, SFTCollator
from siqvl.generation.engine import Engine
from siqvl.generation.request import Sampling
from siqvl.recipe import Stage
from siqvl.training.stage import train_stage
from tests.generation.test_engine import items
from tests.training.changed_recipe import changed
from tests.training.made_pairs import random_model
from tests.training.stopping import stopped_after
from tests.training.test_packed_training import in_packs, mixed

pytestmark = pytest.mark.gpu
BF16 = 0.15  # of log-probabilities around -7.5


@pytest.fixture(params=["sdpa", "flash_attention_2"])
def attention(request: pytest.FixtureRequest) -> str:
    if request.param == "flash_attention_2" and find_spec("flash_attn") is None:
        pytest.skip("the package flash-attn is not installed")
    return request.param


def on_gpu(batch: dict) -> dict:
    moved = {key: value.to("cuda") for key, value in batch.items()}
    return moved | {key: moved[key].bfloat16() for key in {"pixel_values"} & set(moved)}


@torch.no_grad()
def test_bfloat16_is_near_float32(attention: str) -> None:
    exact, processor = random_model("sdpa", torch.float32)
    near, _ = random_model(attention, torch.bfloat16)
    batch = SFTCollator(processor)(mixed(processor, 0))
    known = exact(**batch, head_chunk=64).log_probs
    found = near.to("cuda")(**on_gpu(batch), head_chunk=64).log_probs
    assert (found.float().cpu() - known).abs().max() < BF16


def test_packed_rows_learn_as_padded_ones(attention: str) -> None:
    """Loss and gradients of the same rows; under flash-attention a pack is a batch of one row."""
    found = []
    for packed in (False, True):
        model, processor = random_model(attention, torch.bfloat16, max_image_tokens=16)
        model.to("cuda")
        rows = mixed(processor, 0)
        collate = PackedCollator(processor, one_row=attention == "flash_attention_2")
        batch = collate(in_packs(rows)) if packed else SFTCollator(processor)(rows)
        loss = -model(**on_gpu(batch), head_chunk=64).log_probs.float().mean()
        loss.backward()
        gradients = [one.grad.flatten() for one in model.parameters() if one.grad is not None]
        found.append((loss.item(), torch.cat(gradients).float()))
    (loss, gradient), (other_loss, other_gradient) = found
    assert loss == pytest.approx(other_loss, abs=0.02)
    assert torch.cosine_similarity(gradient, other_gradient, dim=0) > 0.99


@pytest.mark.parametrize("stage", [Stage.PROJECTOR_ALIGNMENT, Stage.VQA_SFT, Stage.DPO])
@pytest.mark.parametrize("cached", [False, True])
def test_a_killed_stage_goes_on(trained, tmp_path: Path, stage: Stage, *, cached: bool) -> None:
    """In bfloat16, near the undisturbed run: sums of a GPU's atomics come in no fixed order."""
    figures = {"max_steps": 6, "saving_steps": 2, "logging_steps": 1, "precision": "bf16"}
    recipe = changed(trained.recipe, stage, **figures, cached_features=cached)
    inputs = {"data": trained.data(stage), "checkpoint": trained.parent(stage)}
    straight, resumed = tmp_path / "straight", tmp_path / "resumed"
    train_stage(stage, recipe, **inputs, output=straight)
    with stopped_after(5), pytest.raises(RuntimeError, match="killed"):
        train_stage(stage, recipe, **inputs, output=resumed)
    train_stage(stage, recipe, **inputs, output=resumed)
    losses = [[entry["loss"] for entry in read_history(one)] for one in (straight, resumed)]
    assert losses[1] == pytest.approx(losses[0], rel=0.02)
    known = load_file(straight / "model.safetensors")
    for name, value in load_file(resumed / "model.safetensors").items():
        near = torch.allclose(value.float(), known[name].float(), rtol=0.02, atol=1e-3)
        assert near, name


def test_the_engine_answers_as_on_a_cpu() -> None:
    """Prompts side by side, in float32: the likeliest tokens are those that a CPU finds."""
    answers = []
    for device in ("cpu", "cuda"):
        model, processor = random_model("sdpa", torch.float32)
        model.eval().to(device)
        asked = items(processor)
        queues: list[SimpleQueue] = [SimpleQueue() for _ in asked]
        with Engine(model, processor, places=4, waiting=64, max_length=512) as engine:
            for item, queue in zip(asked, queues, strict=True):
                engine.submit(item, Sampling(12), queue.put)
            answers.append([_text(queue) for queue in queues])
    assert answers[0] == answers[1]
    assert any(answers[0])


def _text(pieces: SimpleQueue) -> str:
    found = [pieces.get(timeout=60)]
    while found[-1].finish is None:
        found.append(pieces.get(timeout=60))
    return "".join(piece.text for piece in found)
