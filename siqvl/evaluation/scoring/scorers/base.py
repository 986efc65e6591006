"""What a scorer is."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from siqvl.composed_text import composed


@dataclass(frozen=True)
class Scorer:
    """Judges one answer to one question.

    Raise `version` whenever a scorer's result can change: it is stored with every score. (That
    texts are composed first is newer than the versions: of composed ones no result changed. So is
    that an answer of punctuation alone is one: before, saying nothing was right there.)

    Attributes:
        judge: what `score` asks, with texts in Unicode's composed form.
        judge_letter: the same of a prediction that was asked for as a letter, where that differs.
    """

    name: str
    version: int
    judge: Callable[[str, list[str], list[str]], float]
    judge_letter: Callable[[str, list[str], list[str]], float] | None = None

    def score(
        self, prediction: str, answers: list[str], choices: list[str], *, by_letter: bool = False
    ) -> float:
        """Tells how right a prediction is, in [0, 1]; all texts are composed (NFC) before.

        Args:
            prediction: the answer alone, without the chain of thought before it.
            answers: every accepted answer (in VQAv2 those of the ten annotators, repeats included).
            choices: the options of a multiple-choice question, else none.
            by_letter: they were listed with letters, one of which was asked for.
        """
        judge = self.judge_letter if by_letter and self.judge_letter else self.judge
        return judge(
            composed(prediction), [composed(one) for one in answers], [*map(composed, choices)]
        )

    @property
    def label(self) -> str:
        """What is stored beside a score: `vqav2/1`."""
        return f"{self.name}/{self.version}"
