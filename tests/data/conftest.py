"""Fixtures: a processor with Qwen's chat template, and rows of every shape."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from siqvl.data.schema import Row, RowKind, evaluation_row, preference_row, sft_row
from siqvl.recipe import Source
from tests.data.made_pictures import picture

SPECIAL_TOKENS = [
    "<|endoftext|>",
    *("<|im_start|>", "<|im_end|>", "<|object_ref_start|>", "<|object_ref_end|>"),
    *("<|box_start|>", "<|box_end|>", "<|quad_start|>", "<|quad_end|>"),
    *("<|vision_start|>", "<|vision_end|>", "<|vision_pad|>", "<|image_pad|>", "<|video_pad|>"),
]


def small_tokenizer(*, composed: bool = False):
    """Byte-level BPE with Qwen's special tokens, trained here.

    Args:
        composed: compose characters (NFC) and keep digits apart before the merges, as Qwen's does.
    """
    from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    if composed:
        digits = pre_tokenizers.Digits(individual_digits=True)
        tokenizer.normalizer = normalizers.NFC()
        tokenizer.pre_tokenizer = pre_tokenizers.Sequence([digits, tokenizer.pre_tokenizer])
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=400, initial_alphabet=alphabet, show_progress=False)
    text = ["What color is the circle? a red square at the top left. Answer: blue"] * 3
    tokenizer.train_from_iterator(text, trainer)
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, eos_token="<|im_end|>", pad_token="<|endoftext|>"
    )
    fast.add_special_tokens({"additional_special_tokens": SPECIAL_TOKENS})
    return fast


def make_processor(tokenizer, num_image_tokens: int = 4):
    from transformers import SiglipImageProcessor

    from siqvl.model import SiQVLProcessor, chat_template

    return SiQVLProcessor(
        image_processor=SiglipImageProcessor(size={"height": 16, "width": 16}),
        tokenizer=tokenizer,
        num_image_tokens=num_image_tokens,
        chat_template=chat_template(),
    )


@pytest.fixture(scope="session")
def processor():
    return make_processor(small_tokenizer())


@pytest.fixture(scope="session")
def real_processor():
    """With the published Qwen2.5 tokenizer, or one that treats text likewise where it is absent."""
    from transformers import AutoTokenizer

    folder = os.environ.get("SIQVL_REAL_DATA")
    if not folder:
        return make_processor(small_tokenizer(composed=True))
    return make_processor(AutoTokenizer.from_pretrained(Path(folder) / "qwen2.5_tokenizer"))


@pytest.fixture(scope="session")
def make_row() -> Callable[..., Row]:
    """A good row of a kind; keyword arguments replace its columns."""

    def build(kind: RowKind = RowKind.SFT, number: int = 0, **columns: Any) -> Row:
        about = {"source": "made", "note": "x"}
        images = [picture(f"#{number:06x}")]
        row_id = f"made/{number}"
        if kind is RowKind.SFT:
            row = sft_row(row_id, images, "What color?", "blue", **about)
        elif kind is RowKind.PREFERENCE:
            row = preference_row(row_id, images, "What color?", "blue", "red", **about)
        else:
            about |= {"benchmark": "made", "split": "test"}
            row = evaluation_row(row_id, images, "What color?", ["blue"], **about)
        return row | columns

    return build


@pytest.fixture
def made_source(monkeypatch) -> Callable[[list[Row]], Source]:
    """A source that yields the rows it is given."""
    from siqvl.data import sources

    class Made:
        kinds = frozenset(RowKind)

        def __init__(self, rows: list[Row]) -> None:
            self._rows = rows

        def check(self, source: Source, kind: RowKind) -> None:
            pass

        def rows(self, source: Source, kind: RowKind, seed: int):
            return iter(self._rows)

    def register(rows: list[Row]) -> Source:
        monkeypatch.setitem(sources.SOURCES, "made", Made(rows))
        return Source(kind="made")

    return register
