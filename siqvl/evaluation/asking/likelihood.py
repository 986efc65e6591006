"""Method `likelihood`: the option whose letter the model finds likeliest as its answer.

Robinson et al. 2023 (arXiv:2210.12353) call it multiple choice prompting: options stand in the
prompt, and one letter is compared with the other, so that neither the length nor the commonness of
an option's words counts.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from functools import cache

import torch

from siqvl.data.encoded import IGNORED, Encoded
from siqvl.data.schema import Row
from siqvl.evaluation.asking.encoded_pictures import EncodedPictures
from siqvl.evaluation.asking.greedy_answers import encoded_question, question_of
from siqvl.evaluation.asking.log_probability import Sequence as Judged
from siqvl.evaluation.asking.log_probability import log_probabilities
from siqvl.evaluation.asking.prompts import Output, Prompt, Told
from siqvl.evaluation.letters import letters
from siqvl.generation import beginnings as generation
from siqvl.generation.beginnings import passes
from siqvl.generation.decoder import Decoder
from siqvl.model.modeling import SiQVLForConditionalGeneration
from siqvl.model.processing import SiQVLProcessor
from siqvl.recipe import Benchmark


@dataclass(frozen=True, eq=False)
class Likelihood:
    """The likeliest letter; the first of several that are equally likely."""

    model: SiQVLForConditionalGeneration
    processor: SiQVLProcessor
    benchmark: Benchmark
    batch_size: int

    def text(self, row: Row) -> Hashable:
        return question_of(row, self.benchmark), len(row["choices"])

    def words(self, row: Row, images: int) -> tuple[Encoded, ...]:
        return (encoded_question(row, self.benchmark, self.processor, images),)

    def answer(
        self, prompts: Sequence[Prompt], pictures: EncodedPictures, told: Told
    ) -> list[Output]:
        outputs: list[Output] = []
        for start in range(0, len(prompts), self.batch_size):
            some = prompts[start : start + self.batch_size]
            for found in self.log_probabilities(some, pictures):
                told(len(outputs), 0)
                outputs.append(Output(letters(len(found))[found.index(max(found))]))
        return outputs

    def log_probabilities(
        self, prompts: Sequence[Prompt], pictures: EncodedPictures
    ) -> list[list[float]]:
        """Gives log p of every letter a prompt offers, in nats."""
        most = letters(max(prompt.options for prompt in prompts))
        tokens = [self._tokens(letter) for letter in most]
        if any(len(ids) > 1 for ids in tokens):
            return [self._one_by_one(prompt, tokens, pictures) for prompt in prompts]
        token = self.model.config.image_token_id
        asked = [
            generation.Prompt.asked(prompt.words[0].input_ids, prompt.pictures, token)
            for prompt in prompts
        ]
        with torch.inference_mode():
            scores = torch.cat(
                [
                    Decoder(self.model, len(some)).read(
                        asked[some.start : some.stop], pictures.tokens, 0
                    )
                    for some in passes(asked, self.model.device)
                ]
            )
            log_probs = scores.float().log_softmax(-1)
            of_letters = log_probs[:, [token for (token,) in tokens]].tolist()
        return [row[: prompt.options] for row, prompt in zip(of_letters, prompts, strict=True)]

    def _one_by_one(
        self, prompt: Prompt, tokens: list[list[int]], pictures: EncodedPictures
    ) -> list[float]:
        """Where a letter takes several tokens: every letter as a completion of its own."""
        asked = prompt.words[0].input_ids
        sequences = [
            Judged(
                Encoded([*asked, *ids], [IGNORED] * len(asked) + ids, len(prompt.pictures)),
                prompt.pictures,
                len(asked),
            )
            for ids in tokens[: prompt.options]
        ]
        return log_probabilities(self.model, sequences, pictures.tokens)

    @cache  # noqa: B019  # lives as long as one benchmark's evaluation
    def _tokens(self, letter: str) -> list[int]:
        """Ids of an answer that begins with the letter: tokenised where generation begins."""
        return self.processor.tokenizer(letter, add_special_tokens=False)["input_ids"]
