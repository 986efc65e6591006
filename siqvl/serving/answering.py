"""A loaded checkpoint that answers rows of a request, greedily or drawn at random."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from siqvl.data.collate import GenerationCollator
from siqvl.data.encode import encode_prompt
from siqvl.data.schema import Row
from siqvl.device import answering_attention, best_device
from siqvl.errors import UserError
from siqvl.evaluation.asking.greedy_answers import greedy
from siqvl.generation.sampling import draw, end_ids, random_numbers
from siqvl.serving.settings import ServingSettings

if TYPE_CHECKING:
    from siqvl.model.modeling import SiQVLForConditionalGeneration
    from siqvl.model.processing import SiQVLProcessor


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
        """Refuse what cannot be done.

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
        self._collate = GenerationCollator(processor)
        self._ends = end_ids(model, processor)

    @classmethod
    def load(cls, checkpoint: Path, settings: ServingSettings) -> Answerer:
        """Load a checkpoint on the fastest device of this machine, as an evaluation does."""
        from siqvl.model.assemble import load_checkpoint

        attention = answering_attention(settings.attention)
        model, processor = load_checkpoint(checkpoint, attn_implementation=attention)
        model.to(best_device())  # type: ignore[arg-type]  # transformers wraps `to` untyped
        model.eval()
        return cls(model, processor, settings)

    def answer(self, rows: Sequence[Row], writing: Writing) -> list[Answer]:
        """Answers to what `siqvl.serving.requests.read_request` gave, in its order.

        Raises:
            UserError: a param out of its range, or a conversation longer than the model reads.
        """
        writing.check(self.settings)
        prompts = [encode_prompt(row, self._processor).input_ids for row in rows]
        longest = self._model.config.text_config.max_position_embeddings - writing.max_new_tokens
        for row, ids in zip(rows, prompts, strict=True):
            if len(ids) > longest:
                raise UserError(
                    f"row {row['id']}: question and picture take {len(ids):,} tokens, the model "
                    f"reads {longest:,} and writes {writing.max_new_tokens:,}"
                )
        answers: list[Answer] = []
        for start in range(0, len(rows), self.settings.batch_size):
            some = slice(start, start + self.settings.batch_size)
            answers += self._batch(rows[some], prompts[some], writing)
        return answers

    def _batch(
        self, rows: Sequence[Row], prompts: list[list[int]], writing: Writing
    ) -> list[Answer]:
        items = [
            {"input_ids": ids, "images": row["images"]}
            for row, ids in zip(rows, prompts, strict=True)
        ]
        batch = {key: one.to(self._model.device) for key, one in self._collate(items).items()}
        written = self._drawn(rows, batch, writing) if writing.temperature else None
        if written is None:
            written = greedy(self._model, **batch, max_new_tokens=writing.max_new_tokens)
        texts = self._processor.tokenizer.batch_decode(written, skip_special_tokens=True)
        return [
            Answer(text.strip(), ids[-1] in self._ends)
            for text, ids in zip(texts, written, strict=True)
        ]

    def _drawn(
        self, rows: Sequence[Row], batch: dict[str, Any], writing: Writing
    ) -> list[list[int]]:
        import torch

        numbers = [
            random_numbers(writing.seed, row["id"], 0, writing.max_new_tokens) for row in rows
        ]
        drawn = draw(
            self._model,
            batch,
            torch.tensor(numbers),
            temperature=writing.temperature,
            end_ids=self._ends,
        )
        return [ids for ids, _ in drawn]
