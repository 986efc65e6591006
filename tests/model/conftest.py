"""Fixtures: the parts as folders that `assemble` reads, what it makes of them, and a checkpoint.

Real files come from the folder in SIQVL_REAL_DATA; tests that need them skip without it.
"""

import os
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch
from transformers import (
    PreTrainedTokenizerFast,
    Qwen2ForCausalLM,
    SiglipConfig,
    SiglipImageProcessor,
    SiglipModel,
)

from siqvl.model import SiQVLForConditionalGeneration, assemble
from siqvl.model.decoders import DECODERS
from tests.model.tiny_siqvl import (
    TINY_DECODERS,
    make_tokenizer,
    tiny_text_config,
    tiny_vision_config,
    widen,
    write_language,
)


@pytest.fixture(scope="session", autouse=True)
def one_thread():
    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def real_data() -> Path:
    folder = os.environ.get("SIQVL_REAL_DATA")
    if not folder:
        pytest.skip(
            "SIQVL_REAL_DATA is not set: it names the folder with real tokenizer and config files"
        )
    return Path(folder)


@pytest.fixture(scope="session")
def tokenizer() -> PreTrainedTokenizerFast:
    return make_tokenizer()


@pytest.fixture(scope="session")
def parts(tmp_path_factory, tokenizer) -> tuple[Path, Path]:
    """(vision folder with a full SiglipModel, language folder with a Qwen2ForCausalLM)."""
    torch.manual_seed(0)
    root = tmp_path_factory.mktemp("parts")
    vision, language = root / "siglip", root / "qwen2"
    text = dict(
        hidden_size=16,
        intermediate_size=32,
        num_hidden_layers=1,
        num_attention_heads=2,
        vocab_size=64,
    )
    siglip = SiglipModel(
        SiglipConfig(vision_config=tiny_vision_config().to_dict(), text_config=text)
    )
    siglip.save_pretrained(vision)
    SiglipImageProcessor(size={"height": 16, "width": 16}).save_pretrained(vision)
    qwen2 = Qwen2ForCausalLM(tiny_text_config())
    widen(qwen2)
    qwen2.save_pretrained(language)
    tokenizer.save_pretrained(language)
    return vision, language


class Family(NamedTuple):
    """A decoder of `siqvl.model.decoders`, and a tower, as folders of published parts."""

    model_type: str
    vision: Path
    language: Path

    def assembled(self, **options: Any) -> Any:
        """Its model in eval mode, and processor."""
        torch.manual_seed(1)
        return assemble(self.vision, self.language, **options)


@pytest.fixture(scope="session", params=sorted(DECODERS))
def family(request, parts, tmp_path_factory) -> Family:
    """Every registered family, one after the other."""
    folder = tmp_path_factory.mktemp("families") / request.param
    write_language(folder, TINY_DECODERS[request.param]())
    return Family(request.param, parts[0], folder)


@pytest.fixture(scope="session")
def family_checkpoint(family, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("checkpoints") / family.model_type
    for part in family.assembled():
        part.save_pretrained(folder)
    return folder


@pytest.fixture
def assembled(parts):
    """(model in eval mode, processor): 4x4 patches, r=2, so 4 tokens an image."""
    torch.manual_seed(1)
    return assemble(*parts)


@pytest.fixture
def model(assembled) -> SiQVLForConditionalGeneration:
    return assembled[0]


@pytest.fixture
def processor(assembled):
    return assembled[1]


@pytest.fixture(scope="session")
def checkpoint(parts, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("checkpoint") / "siqvl-tiny"
    model, processor = assemble(*parts)
    model.save_pretrained(folder)
    processor.save_pretrained(folder)
    return folder
