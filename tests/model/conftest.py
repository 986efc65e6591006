"""Tiny random parts, saved as the folders that `assemble` reads, and a small Qwen-like tokenizer.

Real files come from the folder in SIQVL_REAL_DATA; tests that need them skip without it.
"""

import os
from pathlib import Path

import pytest
import torch
from PIL import Image
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import (
    PreTrainedTokenizerFast,
    Qwen2Config,
    Qwen2ForCausalLM,
    SiglipConfig,
    SiglipImageProcessor,
    SiglipModel,
    SiglipVisionConfig,
)

from siqvl.model import SiQVLConfig, SiQVLForConditionalGeneration, assemble

# Qwen's special tokens, in Qwen's order.
SPECIAL_TOKENS = (
    "<|endoftext|> <|im_start|> <|im_end|> <|object_ref_start|> <|object_ref_end|> <|box_start|> "
    "<|box_end|> <|quad_start|> <|quad_end|> <|vision_start|> <|vision_end|> <|vision_pad|> "
    "<|image_pad|> <|video_pad|>"
).split()


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


def make_tokenizer() -> PreTrainedTokenizerFast:
    """A byte-level BPE like Qwen's, trained on one sentence, then Qwen's special tokens."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=280, initial_alphabet=pre_tokenizers.ByteLevel.alphabet(), show_progress=False
    )
    tokenizer.train_from_iterator(
        ["what is in the picture? a red square and a blue circle."], trainer
    )
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, eos_token="<|im_end|>", pad_token="<|endoftext|>"
    )
    fast.add_special_tokens({"additional_special_tokens": SPECIAL_TOKENS})
    return fast


@pytest.fixture(scope="session")
def tokenizer() -> PreTrainedTokenizerFast:
    return make_tokenizer()


def tiny_vision_config(**changes) -> SiglipVisionConfig:
    """A 4x4 grid of patches."""
    values = dict(hidden_size=16, intermediate_size=32, num_hidden_layers=2, num_attention_heads=2)
    return SiglipVisionConfig(**{**values, "image_size": 16, "patch_size": 4, **changes})


def tiny_text_config(**changes) -> Qwen2Config:
    values = dict(hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=4)
    values |= dict(
        num_key_value_heads=2, vocab_size=320, max_position_embeddings=512, tie_word_embeddings=True
    )
    return Qwen2Config(**{**values, **changes})


def widen(model: torch.nn.Module) -> None:
    """Ten times the usual weights: small ones make all outputs alike, and tests pass for nothing."""
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "norm" not in name:
                parameter.mul_(10 if parameter.std() < 0.05 else 1)


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


def tiny_config(**changes) -> SiQVLConfig:
    return SiQVLConfig(
        vision_config=tiny_vision_config(),
        text_config=tiny_text_config(),
        image_token_id=300,
        **changes,
    )


def picture(seed: int) -> Image.Image:
    """Noise with its own pixels for each seed."""
    generator = torch.Generator().manual_seed(seed)
    pixels = torch.randint(0, 256, (20, 24, 3), dtype=torch.uint8, generator=generator)
    return Image.fromarray(pixels.numpy())


def conversation(question: str, images: int = 1, answer: str | None = None) -> list[dict]:
    content = [{"type": "image"}] * images + [{"type": "text", "text": question}]
    messages = [{"role": "user", "content": content}]
    if answer is not None:
        messages.append({"role": "assistant", "content": [{"type": "text", "text": answer}]})
    return messages


def encode(processor, question: str, images=(), answer: str | None = None) -> dict:
    """One conversation as model inputs; `pixel_values` only when there are images."""
    text = processor.apply_chat_template(
        conversation(question, len(images), answer), add_generation_prompt=answer is None
    )
    return processor(text=text, images=list(images) or None, return_tensors="pt")
