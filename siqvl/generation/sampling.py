"""Completions drawn at random, from random numbers that do not depend on what shares the batch."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence

import numpy as np
import torch

from siqvl.data.schema import Row
from siqvl.generation.choose import Drawn
from siqvl.generation.completions import Completion, complete, prompt_item
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

    Args:
        questions: rows with `id`, `question` and decoded `images`.
        progress: told of questions as they are done, as `complete` does.
    """
    prompts = [prompt_item(row, processor, suffix=settings.prompt_suffix) for row in questions]
    order = sorted(range(len(prompts)), key=lambda index: len(prompts[index]["input_ids"]))
    written = complete(
        model,
        processor,
        [prompts[index] for index in order],
        max_new_tokens=settings.max_new_tokens,
        places=settings.batch_size,
        samples=settings.samples,
        choose=drawn(
            [questions[index]["id"] for index in order],
            seed=seed,
            samples=settings.samples,
            max_new_tokens=settings.max_new_tokens,
            temperature=settings.temperature,
        ),
        progress=progress,
    )
    completions: list[list[Completion]] = [[] for _ in prompts]
    for place, completion in enumerate(written):
        completions[order[place // settings.samples]].append(completion)
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
