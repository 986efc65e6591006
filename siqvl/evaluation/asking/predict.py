"""Ask a model everything that a plan holds, batch by batch, in a way that can go on later."""

from __future__ import annotations

import time
from itertools import chain
from pathlib import Path
from typing import Any

from tqdm import tqdm

from siqvl.data.encoded import IGNORED
from siqvl.evaluation.asking.encoded_pictures import EncodedPictures
from siqvl.evaluation.asking.greedy_answers import Generation
from siqvl.evaluation.asking.likelihood import Likelihood
from siqvl.evaluation.asking.outputs import write_outputs
from siqvl.evaluation.asking.preferred import Preference
from siqvl.evaluation.asking.prompts import Method
from siqvl.evaluation.asking.question_plan import Plan
from siqvl.evaluation.benchmarks.benchmark_rows import Questions
from siqvl.recipe import Benchmark


def method_of(benchmark: Benchmark, model: Any, processor: Any, batch_size: int) -> Method:
    """Gives the way in which a benchmark asks, `batch_size` prompts at a time."""
    if benchmark.method == "preference":
        return Preference(model, processor, batch_size)
    if benchmark.method == "likelihood":
        return Likelihood(model, processor, benchmark, batch_size)
    return Generation(model, processor, benchmark, batch_size)


class Share:
    """A shard's part of a plan, and the folder its answers go to, a file a portion.

    Args:
        shard: takes every `shards`-th portion, from number `shard` on.
    """

    def __init__(self, plan: Plan, folder: Path, shard: int = 0, shards: int = 1) -> None:
        self.plan = plan
        self._folder = folder
        self._mine = range(len(plan.portions))[shard::shards]

    def answers(self, *, left: bool = False) -> int:
        """Counts the answers it takes, all or those that are not there yet."""
        return sum(
            self.plan.answers(self.plan.portions[number])
            for number in self._mine
            if not (left and self._path(number).exists())
        )

    def predict(
        self, questions: Questions, method: Method, pictures: EncodedPictures, bar: tqdm
    ) -> None:
        """Answers what is left."""
        places = questions.places
        bar.set_description(questions.benchmark.name)
        for number in self._mine:
            if self._path(number).exists():
                continue
            portion = self.plan.portions[number]
            prompts = [self.plan.prompts[one] for one in portion]
            shown = chain.from_iterable(prompt.pictures for prompt in prompts)
            pictures.load(shown, questions.dataset, places)
            answered = []
            told = _Told(bar, [len(self.plan.asks[one]) for one in portion])
            for one, output in zip(portion, method.answer(prompts, pictures, told), strict=True):
                answered += [(ask, output) for ask in self.plan.asks[one]]
            write_outputs(self._path(number), answered)

    def _path(self, portion: int) -> Path:
        return self._folder / f"{portion:06d}.parquet"


class _Told:
    """Moves the bar on, and shows how quickly tokens are written.

    Args:
        answers: of each prompt of a portion.
    """

    def __init__(self, bar: tqdm, answers: list[int]) -> None:
        self._bar, self._answers = bar, answers
        self._tokens, self._start = 0, time.monotonic()

    def __call__(self, number: int, tokens: int) -> None:
        self._tokens += tokens
        if self._tokens:
            rate = self._tokens / max(time.monotonic() - self._start, 1e-9)
            self._bar.set_postfix_str(f"{rate:,.0f} tokens/s", refresh=False)
        self._bar.update(self._answers[number])


def first_prompt_text(plan: Plan, processor: Any) -> str:
    """Gives the first row's prompt as text, one placeholder a picture for its many tokens."""
    words = plan.prompts[0].words[0]  # a plan begins with the model and the first row
    labels = words.labels or [IGNORED] * len(words)  # a bare prompt has none
    asked = [
        token for token, label in zip(words.input_ids, labels, strict=True) if label == IGNORED
    ]
    text = processor.tokenizer.decode(asked)
    return text.replace(processor.image_token * processor.num_image_tokens, processor.image_token)
