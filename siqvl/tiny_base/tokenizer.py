"""A small tokenizer of Qwen2.5's kind: byte-level BPE with the same special tokens."""

from __future__ import annotations

from collections.abc import Iterable

from transformers import Qwen2Tokenizer

#: Qwen2.5's control tokens, in the order of its vocabulary (ids 151643 … 151656 there).
SPECIAL_TOKENS = (
    "<|endoftext|>",
    "<|im_start|>",
    "<|im_end|>",
    "<|object_ref_start|>",
    "<|object_ref_end|>",
    "<|box_start|>",
    "<|box_end|>",
    "<|quad_start|>",
    "<|quad_end|>",
    "<|vision_start|>",
    "<|vision_end|>",
    "<|vision_pad|>",
    "<|image_pad|>",
    "<|video_pad|>",
)


def train_tokenizer(texts: Iterable[str], vocabulary: int) -> Qwen2Tokenizer:
    """Learn merges from `texts`; any other text still encodes, byte by byte if need be."""
    tokenizer = Qwen2Tokenizer().train_new_from_iterator(
        texts, vocab_size=vocabulary, new_special_tokens=list(SPECIAL_TOKENS), show_progress=False
    )
    tokenizer.eos_token = "<|im_end|>"
    tokenizer.pad_token = "<|endoftext|>"
    tokenizer.model_max_length = 2048
    return tokenizer
