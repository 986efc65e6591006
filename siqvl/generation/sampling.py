"""Completions drawn at random from a model, in batches with the KV cache.

Every completion has a stream of random numbers of its own, seeded by (seed, question, which of its
samples), and takes one a token: the token at which the cumulated probabilities pass it. So what is
drawn does not depend on what shares the batch, but for rounding in the model's scores.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from siqvl.data.collate import GenerationCollator
from siqvl.data.encode import encode_prompt
from siqvl.data.schema import Row
from siqvl.recipe import SampledPairs

if TYPE_CHECKING:
    import numpy as np
    import torch

    from siqvl.model.modeling import SiQVLForConditionalGeneration
    from siqvl.model.processing import SiQVLProcessor

#: Finished rows leave the batch once this share of it is left: each time copies the cache.
KEPT_SHARE = 0.8


@dataclass(frozen=True)
class Completion:
    """What a model wrote."""

    text: str  # without special tokens
    ended: bool  # by an end token, not by the limit of tokens


def sample(
    model: SiQVLForConditionalGeneration,
    processor: SiQVLProcessor,
    questions: Sequence[Row],
    settings: SampledPairs,
    *,
    seed: int,
    progress: Callable[[int], object],
) -> list[list[Completion]]:
    """`settings.samples` completions of every question, in the questions' order.

    Questions of similar length share a batch; prompt and pictures pass through the model once for
    all samples of a question.

    Args:
        questions: rows with `id`, `question` and decoded `images`.
        progress: told how many questions are done, batch by batch.
    """
    import torch

    collate, suffix = GenerationCollator(processor), settings.prompt_suffix
    prompts = [encode_prompt(row, processor, suffix=suffix).input_ids for row in questions]
    order = sorted(range(len(prompts)), key=lambda index: len(prompts[index]))
    together = max(1, settings.batch_size // settings.samples)
    completions: list[list[Completion]] = [[] for _ in prompts]
    for start in range(0, len(order), together):
        indices = order[start : start + together]
        batch = collate(
            [{"input_ids": prompts[i], "images": questions[i]["images"]} for i in indices]
        )
        drawn = draw(
            model,
            {name: tensor.to(model.device) for name, tensor in batch.items()},
            torch.tensor(
                [
                    random_numbers(seed, questions[index]["id"], number, settings.max_new_tokens)
                    for index in indices
                    for number in range(settings.samples)
                ]
            ),
            temperature=settings.temperature,
            end_ids=end_ids(model, processor),
        )
        texts = processor.batch_decode([ids for ids, _ in drawn], skip_special_tokens=True)
        for place, (text, (_, ended)) in enumerate(zip(texts, drawn, strict=True)):
            question = indices[place // settings.samples]
            completions[question].append(Completion(text.strip(), ended))
        progress(len(indices))
    return completions


def draw(
    model: SiQVLForConditionalGeneration,
    batch: dict[str, Any],
    uniform: torch.Tensor,
    *,
    temperature: float,
    end_ids: Sequence[int],
) -> list[tuple[list[int], bool]]:
    """Token ids of completions, end token included, and whether they ended.

    Args:
        batch: left-padded prompts (B, T) and their pictures, as from `GenerationCollator`.
        uniform: (B * samples, new tokens at most), numbers in [0, 1); the samples of a prompt
            follow one another.
    """
    import torch
    from transformers import DynamicCache

    count, longest = uniform.shape
    samples = count // len(batch["input_ids"])
    uniform = uniform.to(model.device)
    ends = torch.tensor(list(end_ids), dtype=torch.long, device=model.device)
    written = torch.zeros(count, longest, dtype=torch.long, device=model.device)
    lengths = torch.full((count,), longest, device=model.device)
    ended = torch.zeros(count, dtype=torch.bool, device=model.device)
    with torch.inference_mode():
        cache = DynamicCache(config=model.config.text_config)
        positions = (batch["attention_mask"].cumsum(1) - 1).clamp(min=0)
        cached = {"past_key_values": cache, "use_cache": True, "logits_to_keep": 1}
        scores = model(**batch, position_ids=positions, **cached).logits[:, -1]
        cache.batch_repeat_interleave(samples)
        scores = scores.repeat_interleave(samples, 0)
        mask = batch["attention_mask"].repeat_interleave(samples, 0)
        position = positions[:, -1:].repeat_interleave(samples, 0)
        rows = torch.arange(count, device=model.device)  # the completions that are in the batch
        for step in range(longest):
            tokens = pick(scores, uniform[rows, step], temperature)
            running = ~ended[rows]
            written[rows[running], step] = tokens[running]
            stopped = rows[running & torch.isin(tokens, ends)]
            ended[stopped] = True
            lengths[stopped] = step + 1
            left = (~ended[rows]).nonzero().squeeze(1)
            if not len(left) or step + 1 == longest:
                break
            if len(left) <= KEPT_SHARE * len(rows):
                cache.batch_select_indices(left)
                rows, tokens, mask, position = (
                    tensor[left] for tensor in (rows, tokens, mask, position)
                )
            mask = torch.cat([mask, mask.new_ones(len(mask), 1)], dim=1)
            position = position + 1
            scores = model(
                input_ids=tokens[:, None], attention_mask=mask, position_ids=position, **cached
            ).logits[:, -1]
    ids = [row[:length] for row, length in zip(written.tolist(), lengths.tolist(), strict=True)]
    return list(zip(ids, ended.tolist(), strict=True))


def pick(scores: torch.Tensor, uniform: torch.Tensor, temperature: float) -> torch.Tensor:
    """A token a row, drawn from softmax(scores / temperature) by inverting its distribution.

    Args:
        scores: (B, vocabulary), logits.
        uniform: (B), numbers in [0, 1).
    """
    import torch

    exact = torch.float32 if scores.device.type == "mps" else torch.float64  # mps has no float64
    cumulated = torch.softmax(scores.to(exact) / temperature, dim=-1).cumsum(dim=-1)
    # the last one is 1 but for rounding, above which no number may lie
    wanted = uniform.to(exact)[:, None] * cumulated[:, -1:]
    found = torch.searchsorted(cumulated, wanted, right=True).squeeze(1)
    return found.clamp(max=scores.shape[1] - 1)


def random_numbers(seed: int, question: str, number: int, count: int) -> list[float]:
    """`count` numbers in [0, 1): the stream of the `number`-th completion of a question."""
    import numpy as np

    digest = hashlib.sha256(f"siqvl sample/{seed}/{question}/{number}".encode()).digest()
    stream: np.random.Generator = np.random.default_rng(np.frombuffer(digest, np.uint32))
    return stream.random(count).tolist()


def end_ids(model: SiQVLForConditionalGeneration, processor: SiQVLProcessor) -> list[int]:
    """The tokens at which a generation of the model stops."""
    known: int | list[int] | None = None
    if model.generation_config is not None:
        known = model.generation_config.eos_token_id
    if known is None:
        known = processor.tokenizer.eos_token_id
    return [known] if isinstance(known, int) else list(known or [])
