"""Method `generation`: what the model writes, greedily."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from siqvl.data.encode import encode_prompt, shown_with
from siqvl.data.encoded import Encoded
from siqvl.data.schema import Row
from siqvl.evaluation.asking.encoded_pictures import EncodedPictures
from siqvl.evaluation.asking.prompts import Output, Prompt, Told
from siqvl.evaluation.letters import REQUEST, lettered
from siqvl.generation import beginnings as generation
from siqvl.generation.completions import texts_of
from siqvl.generation.loop import end_ids, write
from siqvl.model.modeling import SiQVLForConditionalGeneration
from siqvl.model.processing import SiQVLProcessor
from siqvl.recipe import Benchmark


def question_of(row: Row, benchmark: Benchmark) -> str:
    """Gives the question as the benchmark asks it, but for its suffix."""
    if not benchmark.letters:
        return row["question"]
    request = REQUEST if benchmark.letter_suffix is None else ""
    return lettered(row["question"], row["choices"], request)


def suffix_of(row: Row, benchmark: Benchmark) -> str:
    """Gives what the benchmark appends to the question."""
    if benchmark.letter_suffix is not None and row["choices"]:
        return benchmark.letter_suffix
    return benchmark.prompt_suffix


def encoded_question(
    row: Row, benchmark: Benchmark, processor: SiQVLProcessor, images: int
) -> Encoded:
    """Encodes the question as the benchmark asks it, when it comes with so many pictures."""
    asked = shown_with({**row, "question": question_of(row, benchmark)}, images)
    return encode_prompt(asked, processor, suffix=suffix_of(row, benchmark))


@dataclass(frozen=True)
class Generation:
    """Greedy answers, `batch_size` in the making at a time."""

    model: SiQVLForConditionalGeneration
    processor: SiQVLProcessor
    benchmark: Benchmark
    batch_size: int

    def text(self, row: Row) -> str:
        return question_of(row, self.benchmark) + suffix_of(row, self.benchmark)

    def words(self, row: Row, images: int) -> tuple[Encoded, ...]:
        return (encoded_question(row, self.benchmark, self.processor, images),)

    def answer(
        self, prompts: Sequence[Prompt], pictures: EncodedPictures, told: Told
    ) -> list[Output]:
        token = self.model.config.image_token_id
        asked = [
            generation.Prompt.asked(prompt.words[0].input_ids, prompt.pictures, token)
            for prompt in prompts
        ]
        written = write(
            self.model,
            asked,
            pictures.tokens,
            places=self.batch_size,
            max_new_tokens=self.benchmark.max_new_tokens,
            end_ids=end_ids(self.model, self.processor.tokenizer.eos_token_id),
        )
        found = {}
        for number, one in written:
            found[number] = one
            told(number, len(one.ids))
        texts = texts_of([found[number] for number in range(len(found))], self.processor)
        return [Output(one.text) for one in texts]
