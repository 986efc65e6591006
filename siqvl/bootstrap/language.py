"""A tiny Qwen2 that can read and reason about the generated world when it is told in words."""

from __future__ import annotations

import random
from collections.abc import Iterator
from itertools import count
from typing import TYPE_CHECKING

from siqvl.bootstrap.corpus import text_row
from siqvl.bootstrap.loop import fit
from siqvl.data.encode import Encoded, encode_sft

if TYPE_CHECKING:
    import torch
    from transformers import Qwen2ForCausalLM

    from siqvl.model.processing import SiQVLProcessor

PROBE_BATCHES = 16
POOL = 16  # batches that are sorted together


def language_config(vocabulary: int, eos: int, pad: int) -> dict:
    """Qwen2.5's shape, small: grouped queries, tied embeddings, the same rotary base."""
    return {
        "vocab_size": vocabulary,
        "hidden_size": 192,
        "intermediate_size": 512,
        "num_hidden_layers": 4,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "max_position_embeddings": 2048,
        "tie_word_embeddings": True,
        "eos_token_id": eos,
        "bos_token_id": None,
        "pad_token_id": pad,
    }


def train_language(
    processor: SiQVLProcessor, vocabulary: int, seed: int, steps: int, batch_size: int
) -> tuple[Qwen2ForCausalLM, float]:
    """Train on `corpus` text; returns the model and its token accuracy on fresh rows."""
    import torch
    from transformers import Qwen2Config, Qwen2ForCausalLM

    torch.manual_seed(seed)
    tokenizer = processor.tokenizer
    model = Qwen2ForCausalLM(
        Qwen2Config(**language_config(vocabulary, tokenizer.eos_token_id, tokenizer.pad_token_id))
    )
    model.set_attn_implementation("eager")

    def batch(rows: list[Encoded]) -> dict[str, torch.Tensor]:
        longest = max(len(row.input_ids) for row in rows)
        ids = torch.full((len(rows), longest), tokenizer.pad_token_id)
        labels = torch.full((len(rows), longest), -100)
        for index, row in enumerate(rows):
            ids[index, : len(row.input_ids)] = torch.tensor(row.input_ids)
            labels[index, : len(row.labels)] = torch.tensor(row.labels)
        # Right padding needs no mask: causal attention never looks at what comes after.
        return {"input_ids": ids, "labels": labels}

    batches = batches_of_like_length(processor, seed, batch_size)

    def loss_of_step(step: int) -> torch.Tensor:
        with torch.autocast("cpu", torch.bfloat16):  # x1.6 on CPUs with eager attention
            return model(**batch(next(batches))).loss

    fit(
        list(model.parameters()),
        loss_of_step,
        steps=steps,
        learning_rate=2e-3,
        title="language model",
        warmup=100,
    )
    model.eval()
    right = total = 0
    fresh = batches_of_like_length(processor, seed + 1, batch_size)
    with torch.inference_mode():
        for _ in range(PROBE_BATCHES):
            inputs = batch(next(fresh))
            predicted = model(input_ids=inputs["input_ids"]).logits[:, :-1].argmax(-1)
            asked = inputs["labels"][:, 1:]
            right += int((predicted == asked).sum())  # -100 is never predicted
            total += int((asked != -100).sum())
    return model, right / total


def batches_of_like_length(
    processor: SiQVLProcessor, seed: int, batch_size: int
) -> Iterator[list[Encoded]]:
    """Endless batches; rows of similar length share one, which halves the padding."""
    rng = random.Random(seed)
    for first in count(step=batch_size * POOL):
        rows = [
            encode_sft(text_row(first + index, seed), processor)
            for index in range(batch_size * POOL)
        ]
        rows.sort(key=lambda row: len(row.input_ids))
        starts = list(range(0, len(rows), batch_size))
        rng.shuffle(starts)
        yield from (rows[start : start + batch_size] for start in starts)
