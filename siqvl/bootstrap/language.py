"""A tiny Qwen2 that can read and reason about the generated world when it is told in words."""

from __future__ import annotations

from typing import TYPE_CHECKING

from siqvl.bootstrap.corpus import text_row
from siqvl.bootstrap.loop import fit
from siqvl.data.encode import encode_sft

if TYPE_CHECKING:
    import torch
    from transformers import Qwen2ForCausalLM

    from siqvl.model.processing import SiQVLProcessor

PROBE_ROWS = 512


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

    def batch(first: int, of_seed: int) -> dict[str, torch.Tensor]:
        rows = [encode_sft(text_row(first + i, of_seed), processor) for i in range(batch_size)]
        longest = max(len(row.input_ids) for row in rows)
        ids = torch.full((batch_size, longest), tokenizer.pad_token_id)
        labels = torch.full((batch_size, longest), -100)
        for index, row in enumerate(rows):
            ids[index, : len(row.input_ids)] = torch.tensor(row.input_ids)
            labels[index, : len(row.labels)] = torch.tensor(row.labels)
        # Right padding needs no mask: causal attention never looks at what comes after.
        return {"input_ids": ids, "labels": labels}

    fit(
        list(model.parameters()),
        lambda step: model(**batch(step * batch_size, seed)).loss,
        steps=steps,
        learning_rate=2e-3,
        title="language model",
        warmup=100,
    )
    model.eval()
    right = total = 0
    with torch.inference_mode():
        for first in range(0, PROBE_ROWS, batch_size):
            inputs = batch(first, seed + 1)
            predicted = model(input_ids=inputs["input_ids"]).logits[:, :-1].argmax(-1)
            asked = inputs["labels"][:, 1:]
            right += (predicted == asked).sum().item()  # -100 is never predicted
            total += (asked != -100).sum().item()
    return model, right / total
