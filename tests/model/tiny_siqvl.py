"""Tiny random parts from transformers' own config classes, and a small Qwen-like tokenizer."""

from pathlib import Path

import torch
from PIL import Image
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import (
    AutoModelForCausalLM,
    PreTrainedConfig,
    PreTrainedTokenizerFast,
    Qwen2Config,
    Qwen3Config,
    SiglipVisionConfig,
)

from siqvl.model import SiQVLConfig

# Qwen's special tokens, in Qwen's order.
SPECIAL_TOKENS = [
    "<|endoftext|>",
    *("<|im_start|>", "<|im_end|>", "<|object_ref_start|>", "<|object_ref_end|>"),
    *("<|box_start|>", "<|box_end|>", "<|quad_start|>", "<|quad_end|>"),
    *("<|vision_start|>", "<|vision_end|>", "<|vision_pad|>", "<|image_pad|>", "<|video_pad|>"),
]
# What Qwen3's tokenizer has besides, as plain text that decoding shows.
QWEN3_TOKENS = (
    *("<tool_call>", "</tool_call>", "<tool_response>", "</tool_response>"),
    *("<think>", "</think>"),
)


def make_tokenizer(more: tuple[str, ...] = ()) -> PreTrainedTokenizerFast:
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
    fast.add_tokens([*more])
    return fast


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


def tiny_qwen3_config(**changes) -> Qwen3Config:
    """Heads of 12 channels, wider than hidden / heads, as in Qwen3-0.6B and 4B."""
    values = dict(hidden_size=32, intermediate_size=64, num_hidden_layers=3, num_attention_heads=4)
    values |= dict(num_key_value_heads=2, head_dim=12, vocab_size=320, tie_word_embeddings=True)
    return Qwen3Config(**{**values, "max_position_embeddings": 512, **changes})


#: The configuration of a tiny one of every registered family: whoever adds a family adds this, and
#: the tests of families ask it.
TINY_DECODERS = {"qwen2": tiny_text_config, "qwen3": tiny_qwen3_config}


def write_language(
    folder: Path, config: PreTrainedConfig, template: str | None = None, **options
) -> None:
    """A published decoder of random weights, with a tokenizer that has Qwen3's tokens."""
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(config)
    widen(model)
    with torch.no_grad():  # gains of one would hide that a norm was left out
        for name, parameter in model.named_parameters():
            if name.endswith(("q_norm.weight", "k_norm.weight")):
                parameter.uniform_(0.5, 2.0)
    model.save_pretrained(folder, **options)
    tokenizer = make_tokenizer(QWEN3_TOKENS)
    tokenizer.chat_template = template
    tokenizer.save_pretrained(folder)


def widen(model: torch.nn.Module) -> None:
    """Ten times the usual weights: small ones make outputs alike, and tests pass for nothing."""
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "norm" not in name:
                parameter.mul_(10 if parameter.std() < 0.05 else 1)


def tiny_config(vision: dict | None = None, text: dict | None = None, **changes) -> SiQVLConfig:
    """`vision` and `text` change the sub-configs, everything else the top config."""
    return SiQVLConfig(
        vision_config=tiny_vision_config(**(vision or {})),
        text_config=tiny_text_config(**(text or {})),
        **{"image_token_id": 300, **changes},
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


def batch_of(processor, rows) -> dict:
    """Rows of (question, images) as one left-padded batch."""
    texts = [
        processor.apply_chat_template(
            conversation(question, len(images)), add_generation_prompt=True
        )
        for question, images in rows
    ]
    images = [image for _, group in rows for image in group]
    return processor(text=texts, images=images or None, padding=True, return_tensors="pt")
