"""What a scorer is."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from siqvl.composed_text import composed
from siqvl.data.schema import Row


class Reference(NamedTuple):
    """What a prediction is judged by.

    Attributes:
        answers: every accepted answer (in VQAv2 those of the ten annotators, repeats included).
        choices: the options of a multiple-choice question, else none.
        type: the kind of question, as its source calls it.
        by_letter: options were listed with letters, one of which was asked for.
    """

    answers: list[str]
    choices: list[str]
    type: str = ""
    by_letter: bool = False


@dataclass(frozen=True)
class Scorer:
    """Judges one answer to one question.

    Raise `version` whenever a scorer's result can change: it is stored with every score. (That
    texts are composed first is newer than the versions: of composed ones no result changed. So is
    that an answer of punctuation alone is one: before, saying nothing was right there.)

    Attributes:
        judge: what `score` asks, with texts in Unicode's composed form.
        chooses: it reads a letter as the option that stands there.
        figures: what is published of a benchmark beside the mean, by name and in its own unit, of
            the lines of `predictions.parquet` that the model wrote.
    """

    name: str
    version: int
    judge: Callable[[str, Reference], float]
    chooses: bool = False
    figures: Callable[[Sequence[Row]], dict[str, float]] | None = None

    def score(
        self,
        prediction: str,
        answers: list[str],
        choices: list[str],
        *,
        type: str = "",
        by_letter: bool = False,
    ) -> float:
        """Tells how right a prediction is, in [0, 1]; all texts are composed (NFC) before.

        Args:
            prediction: the answer alone, without the chain of thought before it.
            answers, choices, type, by_letter: see `Reference`.
        """
        texts = [composed(one) for one in answers], [composed(one) for one in choices]
        return self.judge(composed(prediction), Reference(*texts, type, by_letter))

    @property
    def label(self) -> str:
        """What is stored beside a score: `vqav2/1`."""
        return f"{self.name}/{self.version}"
