"""A tiny Qwen2 that can read and reason about the generated world when it is told in words."""

from __future__ import annotations

import json
import random
from collections import defaultdict
from collections.abc import Iterator
from itertools import count

import torch
from transformers import Qwen2Config, Qwen2ForCausalLM

from siqvl.data.encode import encode_sft
from siqvl.data.encoded import IGNORED, Encoded
from siqvl.model.processing import SiQVLProcessor
from siqvl.tiny_base.corpus import text_row
from siqvl.tiny_base.fit import fit

SCORED_AT_ONCE = 64
FRESH_ROWS = 4000  # that the model is scored on
ROUND = 16  # lengths of batches: oneDNN prepares its kernels anew for each
POOL = 16  # batches that are sorted together


def train_language(
    processor: SiQVLProcessor, vocabulary: int, seed: int, steps: int, batch_size: int
) -> tuple[Qwen2ForCausalLM, dict[str, float]]:
    """Train on `corpus` text; returns the model and its `answers_right` on fresh rows."""
    torch.manual_seed(seed)
    tokenizer = processor.tokenizer
    # Qwen2.5's shape, small: grouped queries, tied embeddings, the same rotary base
    config = Qwen2Config(
        vocab_size=vocabulary,
        hidden_size=192,
        intermediate_size=512,
        num_hidden_layers=4,
        num_attention_heads=8,
        num_key_value_heads=4,
        max_position_embeddings=2048,
        initializer_range=0.06,  # about 1/sqrt(hidden): 0.02 is for models ten times as wide
        tie_word_embeddings=True,
        eos_token_id=tokenizer.eos_token_id,
        bos_token_id=None,
        pad_token_id=tokenizer.pad_token_id,
    )
    model = Qwen2ForCausalLM(config)
    model.set_attn_implementation("eager")

    batches = batches_of_like_length(processor, seed, batch_size)

    def loss_of_step(step: int) -> torch.Tensor:
        with torch.autocast("cpu", torch.bfloat16):  # x1.6 on CPUs with eager attention
            return model(**padded(next(batches), tokenizer.pad_token_id)).loss

    parameters = list(model.parameters())
    fit(parameters, loss_of_step, steps=steps, title="language model", warmup=100)
    return model.eval(), answers_right(model, processor, seed + 1)


def padded(rows: list[Encoded], pad: int) -> dict[str, torch.Tensor]:
    """Right-padded `input_ids` and `labels` [batch, tokens].

    They need no mask: causal attention never looks at what comes after.
    """
    longest = -max(len(row.input_ids) for row in rows) // ROUND * -ROUND
    ids = torch.full((len(rows), longest), pad)
    labels = torch.full((len(rows), longest), IGNORED)
    for index, row in enumerate(rows):
        ids[index, : len(row.input_ids)] = torch.tensor(row.input_ids)
        labels[index, : len(row.labels)] = torch.tensor(row.labels)
    return {"input_ids": ids, "labels": labels}


def answers_right(
    model: Qwen2ForCausalLM, processor: SiQVLProcessor, seed: int
) -> dict[str, float]:
    """Share of single questions whose whole answer is the likeliest, token by token, by type."""
    rows = [text_row(index, seed, questions=1) for index in range(FRESH_ROWS)]
    right: defaultdict[str, list[bool]] = defaultdict(list)
    with torch.inference_mode():
        for start in range(0, len(rows), SCORED_AT_ONCE):
            some = rows[start : start + SCORED_AT_ONCE]
            encoded = [encode_sft(row, processor) for row in some]
            inputs = padded(encoded, processor.tokenizer.pad_token_id)
            predicted = model(input_ids=inputs["input_ids"]).logits[:, :-1].argmax(-1)
            asked = inputs["labels"][:, 1:]
            whole = ((predicted == asked) | (asked == IGNORED)).all(dim=1)
            for row, answered in zip(some, whole.tolist(), strict=True):
                right[json.loads(row["meta"])["type"]].append(answered)
    return {kind: sum(answers) / len(answers) for kind, answers in sorted(right.items())}


def batches_of_like_length(
    processor: SiQVLProcessor, seed: int, batch_size: int
) -> Iterator[list[Encoded]]:
    """Endless batches; rows of similar length share one, which halves the padding."""
    rng = random.Random(seed)
    for first in count(step=batch_size * POOL):
        rows = [
            encode_sft(text_row(first + index, seed), processor, learn_turns="all")
            for index in range(batch_size * POOL)
        ]
        rows.sort(key=lambda row: len(row.input_ids))
        starts = list(range(0, len(rows), batch_size))
        rng.shuffle(starts)
        yield from (rows[start : start + batch_size] for start in starts)
