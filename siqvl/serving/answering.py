"""A loaded checkpoint that answers rows of a request, greedily or drawn at random.

A registered model's own `pyfunc_model.py` calls what stands here by name, and in a process that has
another siqvl than the model's it calls that one: names, arguments and results are to stay.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from siqvl.data.schema import Row
from siqvl.device import resolve_precision
from siqvl.errors import UserError
from siqvl.generation.choose import Choose, likeliest
from siqvl.generation.completions import complete, load_to_answer, prompt_item
from siqvl.generation.sampling import drawn
from siqvl.model.modeling import SiQVLForConditionalGeneration
from siqvl.model.processing import SiQVLProcessor
from siqvl.serving.requests import read_request
from siqvl.serving.settings import ServingSettings


class Answer(NamedTuple):
    """What the model wrote."""

    answer: str
    finished: bool  # False: cut at max_new_tokens


@dataclass(frozen=True)
class Writing:
    """How to write: params of a request.

    Attributes:
        temperature: 0 takes the likeliest token each time; above, one is drawn.
        seed: of what is drawn: an equal request with an equal seed has an equal answer.
    """

    max_new_tokens: int
    temperature: float = 0.0
    seed: int = 0

    def check(self, settings: ServingSettings) -> None:
        """Refuses what cannot be done.

        Raises:
            UserError: a param out of its range.
        """
        for name in ("max_new_tokens", "temperature", "seed"):
            if not isinstance(value := getattr(self, name), int | float):
                kind = "null" if value is None else type(value).__name__
                raise UserError(f"params.{name} is {kind}, expected a number; or leave it out")
        if not 1 <= self.max_new_tokens <= settings.max_new_tokens:
            raise UserError(
                f"params.max_new_tokens is {self.max_new_tokens}, but an answer has 1 to "
                f"{settings.max_new_tokens} tokens"
            )
        if not 0 <= self.temperature <= 100:  # NaN, too
            raise UserError(f"params.temperature is {self.temperature}, expected 0 to 100")

    def choose(self, rows: Sequence[str]) -> Choose:
        """Makes what chooses the tokens of the answers to some rows, given by their ids."""
        if not self.temperature:
            return likeliest
        return drawn(
            rows, seed=self.seed, max_new_tokens=self.max_new_tokens, temperature=self.temperature
        )


class Answerer:
    """The model of one checkpoint directory."""

    def __init__(
        self,
        model: SiQVLForConditionalGeneration,
        processor: SiQVLProcessor,
        settings: ServingSettings,
    ) -> None:
        self.settings = settings
        self._model, self._processor = model, processor

    @classmethod
    def load(cls, checkpoint: Path, settings: ServingSettings) -> Answerer:
        """Loads a checkpoint on the fastest device of this machine, as an evaluation does."""
        precision = resolve_precision(settings.precision)
        return cls(*load_to_answer(checkpoint, settings.attention, precision), settings)

    def read(self, rows: Iterable[Mapping[str, Any]]) -> list[Row]:
        """Reads the rows of a request, with their pictures as small as the tower reads them.

        Raises:
            UserError: see `siqvl.serving.requests.read_request`.
        """
        return read_request(rows, self.settings, self._processor.image_processor)

    def answer(self, rows: Sequence[Row], writing: Writing) -> list[Answer]:
        """Answers the rows that `read` gave, in their order.

        Raises:
            UserError: a param out of its range, or a conversation longer than the model reads.
        """
        writing.check(self.settings)
        prompts = [prompt_item(row, self._processor) for row in rows]
        longest = self._model.config.text_config.max_position_embeddings - writing.max_new_tokens
        for row, prompt in zip(rows, prompts, strict=True):
            if (taken := len(prompt["input_ids"])) > longest:
                raise UserError(
                    f"row {row['id']}: question and picture take {taken:,} tokens, the model "
                    f"reads {longest:,} and writes {writing.max_new_tokens:,}"
                )
        written = complete(
            self._model,
            self._processor,
            prompts,
            max_new_tokens=writing.max_new_tokens,
            places=self.settings.batch_size,
            choose=writing.choose([row["id"] for row in rows]),
        )
        return [Answer(one.text, one.ended) for one in written]
