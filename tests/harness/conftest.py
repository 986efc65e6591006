"""The checkpoint that a harness asks, and benchmarks that it and an evaluation of ours ask."""

from pathlib import Path

import pytest

from siqvl.model.assemble import load_checkpoint
from siqvl.recipe import Stage


@pytest.fixture(scope="session")
def checkpoint(trained) -> Path:
    return trained.checkpoint(Stage.COT_SFT)


@pytest.fixture(scope="session")
def loaded(checkpoint: Path):
    """Model and processor, as an evaluation loads them."""
    model, processor = load_checkpoint(checkpoint, attn_implementation="sdpa")
    return model.eval(), processor


@pytest.fixture(scope="session")
def processor(loaded):
    return loaded[1]
