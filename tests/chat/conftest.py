"""A checkpoint that is loaded to talk to."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from siqvl.chat.open_chat import Chat, open_chat
from tests.answers.conftest import checkpoint

__all__ = ["checkpoint"]


@pytest.fixture
def chat(checkpoint: Path) -> Iterator[Chat]:
    with open_chat(checkpoint, max_new_tokens=8, allow_urls=True) as found:
        yield found
