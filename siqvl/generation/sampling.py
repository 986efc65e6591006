"""Completions drawn at random, from random numbers that do not depend on what shares the batch."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence

import numpy as np
import torch

from siqvl.data.schema import Row
from siqvl.generation.completions import Completion, complete, prompt_item
from siqvl.generation.loop import Drawn
from siqvl.model.modeling import SiQVLForConditionalGeneration
from siqvl.model.processing import SiQVLProcessor
from siqvl.recipe import SampledPairs


def sample(
    model: SiQVLForConditionalGeneration,
    processor: SiQVLProcessor,
    questions: Sequence[Row],
    settings: SampledPairs,
    *,
    seed: int,
    progress: Callable[[int], object],
) -> list[list[Completion]]:
    """Draws `settings.samples` completions of every question, in the questions' order.

    Questions of similar length share a batch.

    Args:
        questions: rows with `id`, `question` and decoded `images`.
        progress: told how many questions are done, batch by batch.
    """
    prompts = [prompt_item(row, processor, suffix=settings.prompt_suffix) for row in questions]
    order = sorted(range(len(prompts)), key=lambda index: len(prompts[index]["input_ids"]))
    together = max(1, settings.batch_size // settings.samples)
    completions: list[list[Completion]] = [[] for _ in prompts]
    for start in range(0, len(order), together):
        indices = order[start : start + together]
        written = complete(
            model,
            processor,
            [prompts[index] for index in indices],
            max_new_tokens=settings.max_new_tokens,
            samples=settings.samples,
            choose=drawn(
                [questions[index]["id"] for index in indices],
                seed=seed,
                samples=settings.samples,
                max_new_tokens=settings.max_new_tokens,
                temperature=settings.temperature,
            ),
        )
        for place, completion in enumerate(written):
            completions[indices[place // settings.samples]].append(completion)
        progress(len(indices))
    return completions


def drawn(
    questions: Sequence[str],
    *,
    seed: int,
    max_new_tokens: int,
    temperature: float,
    samples: int = 1,
) -> Drawn:
    """Chooses by random numbers that follow from the seed and the questions' ids."""
    numbers = [
        random_numbers(seed, question, number, max_new_tokens)
        for question in questions
        for number in range(samples)
    ]
    return Drawn(torch.tensor(numbers), temperature)


def random_numbers(seed: int, question: str, number: int, count: int) -> list[float]:
    """Draws `count` numbers in [0, 1): the stream of the `number`-th completion of a question."""
    digest = hashlib.sha256(f"siqvl sample/{seed}/{question}/{number}".encode()).digest()
    stream: np.random.Generator = np.random.default_rng(np.frombuffer(digest, np.uint32))
    return stream.random(count).tolist()
