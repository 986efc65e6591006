"""Method `preference`: whether the chosen completion is likelier than the rejected one."""

from __future__ import annotations

import json
from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from itertools import takewhile

from siqvl.data.encode import encode_preference, shown_with
from siqvl.data.encoded import Encoded
from siqvl.data.schema import Row
from siqvl.evaluation.asking.encoded_pictures import EncodedPictures
from siqvl.evaluation.asking.log_probability import Sequence as Judged
from siqvl.evaluation.asking.log_probability import log_probabilities
from siqvl.evaluation.asking.prompts import Output, Prompt, Told
from siqvl.model.modeling import SiQVLForConditionalGeneration
from siqvl.model.processing import SiQVLProcessor


@dataclass(frozen=True)
class Preference:
    """The margin log p(chosen) - log p(rejected), in nats, over a completion's tokens and the end
    token after it: what DPO (Rafailov et al. 2023, arXiv:2305.18290) moves, without its reference.
    """

    model: SiQVLForConditionalGeneration
    processor: SiQVLProcessor
    batch_size: int

    def text(self, row: Row) -> Hashable:
        return json.dumps([row["prompt"], row["chosen"], row["rejected"]])

    def words(self, row: Row, images: int) -> tuple[Encoded, ...]:
        return encode_preference(shown_with(row, images), self.processor)

    def answer(
        self, prompts: Sequence[Prompt], pictures: EncodedPictures, told: Told
    ) -> list[Output]:
        outputs: list[Output] = []
        for start in range(0, len(prompts), self.batch_size):
            for output in self._batch(prompts[start : start + self.batch_size], pictures):
                told(len(outputs), 0)
                outputs.append(output)
        return outputs

    def _batch(self, prompts: Sequence[Prompt], pictures: EncodedPictures) -> list[Output]:
        sequences = []
        for prompt in prompts:
            # what both sides begin with is as likely in both, and drops out of the margin
            shared = _alike(*(words.input_ids for words in prompt.words))
            sequences += [Judged(words, prompt.pictures, shared) for words in prompt.words]
        found = log_probabilities(self.model, sequences, pictures.tokens)
        return [Output("", one - other) for one, other in zip(found[::2], found[1::2], strict=True)]


def _alike(chosen: Sequence[int], rejected: Sequence[int]) -> int:
    """Counts the tokens that both begin with, one less than the shorter has at most."""
    pairs = zip(chosen[:-1], rejected[:-1], strict=False)
    return sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], pairs))
