"""A tiny model of every registered family, assembled from folders as published ones are."""

from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch

from siqvl.model import assemble
from siqvl.model.decoders import DECODERS
from tests.model.tiny_siqvl import tiny_qwen3_config, tiny_text_config, write_language

#: The configuration of a tiny one: whoever adds a family adds this, and all tests here ask it.
TINY = {"qwen2": tiny_text_config, "qwen3": tiny_qwen3_config}


class Family(NamedTuple):
    """One of `DECODERS`."""

    model_type: str
    vision: Path
    language: Path

    def assembled(self, **options: Any) -> Any:
        """Its model in eval mode, and processor."""
        torch.manual_seed(1)
        return assemble(self.vision, self.language, **options)


@pytest.fixture(scope="session", params=sorted(DECODERS))
def family(request, parts, tmp_path_factory) -> Family:
    folder = tmp_path_factory.mktemp("families") / request.param
    write_language(folder, TINY[request.param]())
    return Family(request.param, parts[0], folder)


@pytest.fixture
def made(family) -> tuple[Any, Any]:
    return family.assembled()
