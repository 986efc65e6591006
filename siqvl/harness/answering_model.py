"""A loaded checkpoint that answers what a harness asks, in batches, by the loop of our own."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import NamedTuple

import torch

from siqvl.data.collate import pictures
from siqvl.data.encoded import Item
from siqvl.data.schema import Row
from siqvl.errors import UserError, one_line
from siqvl.generation.beginnings import Prompt, after_pictures
from siqvl.generation.choose import likeliest
from siqvl.generation.completions import complete, load_to_answer, prompt_item
from siqvl.generation.reading import Reader
from siqvl.generation.sampling import drawn
from siqvl.harness.decoding import Decoding
from siqvl.harness.model_args import ModelArgs
from siqvl.model.modeling import SiQVLForConditionalGeneration
from siqvl.model.processing import SiQVLProcessor


@dataclass(frozen=True)
class Question:
    """Something to be answered in words.

    Attributes:
        name: what the question is called; those of one name are asked several times.
        row: makes its row, when its turn comes: the pictures of a whole benchmark are many.
        length: about how long it is; questions of like length share a batch.
    """

    name: str
    row: Callable[[], Row]
    length: int
    decoding: Decoding


class Written(NamedTuple):
    """An answer."""

    text: str
    whole: str  # before `until` cut it


class Likely(NamedTuple):
    """How likely the model finds a continuation."""

    log_probability: float  # of all its tokens, in nats
    greedy: bool  # it is what would be written, taking the likeliest token each time


class AnsweringModel:
    """The model of one checkpoint directory."""

    def __init__(
        self,
        model: SiQVLForConditionalGeneration,
        processor: SiQVLProcessor,
        *,
        batch_size: int = 1,
        seed: int = 0,
    ) -> None:
        self._model, self._processor = model, processor
        self._batch_size, self._seed = batch_size, seed

    @classmethod
    def load(cls, args: ModelArgs) -> AnsweringModel:
        """Loads a checkpoint as an evaluation of ours does.

        Raises:
            UserError: no checkpoint, a damaged one, or a device that is not there.
        """
        checkpoint = Path(args.pretrained)
        if not checkpoint.is_dir():
            raise UserError(
                f"model_args: `pretrained`: no directory of a checkpoint at {checkpoint}"
            )
        model, processor = load_to_answer(checkpoint, args.attention)
        if args.device is not None:
            try:
                model.to(args.device)  # type: ignore[arg-type]  # transformers wraps `to` untyped
            except (RuntimeError, AssertionError) as error:
                said = one_line(error)
                raise UserError(f"model_args: `device`: {args.device} is none: {said}") from None
        return cls(model, processor, batch_size=args.batch_size, seed=args.seed)

    @property
    def device(self) -> torch.device:
        """Where the model computes."""
        return self._model.device

    def write(
        self, questions: Sequence[Question], progress: Callable[[int], object] = lambda count: None
    ) -> list[Written]:
        """Answers questions, in their order; those that are written in the same way share batches.

        Args:
            progress: told how many more are answered, batch by batch.

        Raises:
            UserError: a question that is longer than what the model reads.
        """
        names = _numbered([question.name for question in questions])
        order = sorted(
            range(len(questions)),
            key=lambda number: (repr(questions[number].decoding), questions[number].length),
        )
        answers: dict[int, Written] = {}
        for decoding, same in groupby(order, lambda number: questions[number].decoding):
            numbers = list(same)
            for start in range(0, len(numbers), self._batch_size):
                batch = numbers[start : start + self._batch_size]
                rows = [questions[number].row() for number in batch]
                texts = self._written(rows, [names[number] for number in batch], decoding)
                for number, text in zip(batch, texts, strict=True):
                    answers[number] = Written(decoding.cut(text), text)
                progress(len(batch))
        return [answers[number] for number in range(len(questions))]

    def _written(self, rows: Sequence[Row], names: Sequence[str], decoding: Decoding) -> list[str]:
        prompts = [prompt_item(row, self._processor) for row in rows]
        for row, prompt in zip(rows, prompts, strict=True):
            self._check_length(row, len(prompt["input_ids"]) + 1)
        longest = max(len(prompt["input_ids"]) for prompt in prompts)
        tokens = min(decoding.max_new_tokens, self._window - longest)
        choose = likeliest
        if decoding.temperature:
            choose = drawn(
                names, seed=self._seed, max_new_tokens=tokens, temperature=decoding.temperature
            )
        written = complete(
            self._model, self._processor, prompts, max_new_tokens=tokens, choose=choose
        )
        return [one.text for one in written]

    def likely(self, row: Row, continuations: Sequence[str]) -> list[Likely]:
        """Judges texts as beginnings of the answer to a row; its pictures are encoded once.

        Space around a continuation does not count: an answer is a turn of its own, which begins
        with its first word.

        Raises:
            UserError: an empty continuation, or more than what the model reads.
        """
        prompt = prompt_item(row, self._processor)
        asked = prompt["input_ids"]
        tokens = [self._tokens(row, continuation) for continuation in continuations]
        self._check_length(row, len(asked) + max(map(len, tokens)))
        encoded = self._encoded(prompt)
        found: list[Likely] = []
        for start in range(0, len(tokens), self._batch_size):
            found += self._judged(asked, tokens[start : start + self._batch_size], encoded)
        return found

    def _judged(
        self, asked: list[int], tokens: Sequence[list[int]], encoded: torch.Tensor | None
    ) -> list[Likely]:
        image = self._model.config.image_token_id
        names = range(0 if encoded is None else len(encoded))
        # the prompt's last token is read anew with each: what is found there scores the next
        shared = len(asked) - 1 if after_pictures(asked, image) < len(asked) else 0
        prompts = [Prompt([*asked, *ids], tuple(names), shared) for ids in tokens]
        found = []
        with torch.inference_mode():
            hidden, starts = Reader(self._model).states(
                prompts,
                lambda wanted: torch.stack([encoded[name] for name in wanted]),  # type: ignore[index]
            )
            for row, start, ids in zip(hidden, starts, tokens, strict=True):
                first = len(asked) - 1 - start
                scores = self._model.lm_head(row[first : first + len(ids)]).float().log_softmax(-1)
                wanted = torch.tensor(ids, device=scores.device)
                each = scores.gather(1, wanted[:, None])[:, 0]
                found.append(Likely(each.sum().item(), bool((scores.argmax(-1) == wanted).all())))
        return found

    def _encoded(self, prompt: Item) -> torch.Tensor | None:
        """[images, tokens an image, text hidden] of the pictures of one prompt."""
        values = pictures([prompt], self._processor)
        if not values:
            return None
        with torch.inference_mode():
            found = self._model.get_image_features(
                values["pixel_values"].to(self._model.device), return_dict=True
            )
        return found.pooler_output

    def _tokens(self, row: Row, continuation: str) -> list[int]:
        """Ids of the beginning of an answer: tokenised where generation begins."""
        ids = self._processor.tokenizer(continuation.strip(), add_special_tokens=False)["input_ids"]
        if not ids:
            raise UserError(f"{row['id']} has an empty option, which no answer can begin with")
        return ids

    def _check_length(self, row: Row, tokens: int) -> None:
        if tokens > self._window:
            raise UserError(
                f"{row['id']} takes {tokens:,} tokens with its answer, the model reads "
                f"{self._window:,}"
            )

    @property
    def _window(self) -> int:
        """Tokens that the model reads."""
        return self._model.config.text_config.max_position_embeddings


def _numbered(names: Sequence[str]) -> list[str]:
    """Names of which no two are equal: the second time one is asked it is `<name> 2`."""
    seen: Counter[str] = Counter()
    numbered = []
    for name in names:
        seen[name] += 1
        numbered.append(name if seen[name] == 1 else f"{name} {seen[name]}")
    return numbered
