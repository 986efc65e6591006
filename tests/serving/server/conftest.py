"""A small model, and a server that has it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from tests.serving.server.running_server import Running, running, small_model


@pytest.fixture(scope="session")
def small() -> tuple[Any, Any]:
    """Model and processor."""
    return small_model()


@pytest.fixture(scope="module")
def served(small: tuple[Any, Any]) -> Iterator[Running]:
    with running(*small) as found:
        yield found


@pytest.fixture
def slow() -> Iterator[tuple[Any, Any]]:
    """A model that never ends by itself, and takes 20 ms for a token."""
    import time

    model, processor = small_model()
    model.generation_config.eos_token_id = []
    hook = model.lm_head.register_forward_pre_hook(lambda *_: time.sleep(0.02))
    yield model, processor
    hook.remove()
