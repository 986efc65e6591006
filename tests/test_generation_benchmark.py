"""Both sides of the benchmark of answering do the same work, and its figures are of that work."""

import os
import random
import subprocess
import sys

import pytest
import torch

from benchmarks import generation, generation_peers
from siqvl.model.assemble import load_checkpoint
from siqvl.recipe import Stage


@pytest.fixture(scope="module")
def model(trained):
    found, _ = load_checkpoint(trained.checkpoint(Stage.COT_SFT), attn_implementation="sdpa")
    return found.eval()


@pytest.fixture(scope="module")
def work(model):
    """Prompts of one picture each, tokens of the pictures, and how many tokens to write."""
    drawn, image = random.Random(0), model.config.image_token_id
    count = model.config.tokens_per_image
    asked = []
    for _ in range(9):
        words = [drawn.randrange(20, 200) for _ in range(drawn.randint(5, 20))]
        asked.append([*words[:3], *[image] * count, *words[3:]])
    hidden = model.config.text_config.hidden_size
    tokens = torch.randn(9, count, hidden, generator=torch.Generator().manual_seed(0))
    return asked, tokens, [drawn.randint(1, 12) for _ in range(9)]


def test_our_loop_and_generate_write_the_same_tokens(model, work) -> None:
    asked, tokens, limits = work
    ours = generation_peers.ours(model, asked, tokens, limits, places=4)
    assert [len(one) for one in ours] == limits
    assert len({tuple(one) for one in ours}) > 1
    assert generation_peers._generate(model, asked, tokens, limits, size=4)() == ours


@pytest.mark.drill
def test_continuous_batching_of_transformers_writes_them_too(model, work) -> None:
    asked, _, limits = work
    text_only = [[one for one in ids if one != model.config.image_token_id] for ids in asked]
    ours = generation_peers.ours(model, text_only, None, limits, places=4)
    assert generation_peers._generate_batch(model, text_only, limits)() == ours


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_memory_counts_the_process_and_its_children() -> None:
    held = (
        "import subprocess, sys, time; kept = b'1' * (80 << 20);"
        "child = 'import time; kept = b\"2\" * (60 << 20); print(1, flush=True); time.sleep(60)';"
        "one = subprocess.Popen([sys.executable, '-c', child], stdout=subprocess.PIPE);"
        "one.stdout.readline(); print(1, flush=True); time.sleep(60)"
    )
    with subprocess.Popen(
        [sys.executable, "-c", held], stdout=subprocess.PIPE, env=os.environ, process_group=0
    ) as parent:
        try:
            assert parent.stdout is not None
            parent.stdout.readline()
            assert 140 < generation.held_mib(parent.pid) < 240
        finally:
            os.killpg(parent.pid, 9)
