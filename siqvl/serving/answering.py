"""A loaded checkpoint that answers rows of a request, greedily or drawn at random."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from siqvl.data.schema import Row
from siqvl.errors import UserError
from siqvl.generation.completions import Completion, complete, load_to_answer, prompt_item
from siqvl.generation.loop import Choose, likeliest
from siqvl.generation.sampling import drawn
from siqvl.serving.settings import ServingSettings


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
            rows,
            seed=self.seed,
            max_new_tokens=self.max_new_tokens,
            temperature=self.temperature,
        )


class Answerer:
    """The model of one checkpoint directory."""

    def __init__(self, checkpoint: Path, settings: ServingSettings) -> None:
        self.settings = settings
        self._model, self._processor = load_to_answer(checkpoint, settings.attention)

    def answer(self, rows: Sequence[Row], writing: Writing) -> list[Completion]:
        """Answers the rows that `siqvl.serving.requests.read_request` gave, in their order.

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
        answers: list[Completion] = []
        for start in range(0, len(rows), self.settings.batch_size):
            some = slice(start, start + self.settings.batch_size)
            answers += complete(
                self._model,
                self._processor,
                prompts[some],
                max_new_tokens=writing.max_new_tokens,
                choose=writing.choose([row["id"] for row in rows[some]]),
            )
        return answers
