"""What a scorer is."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True)
class Scorer:
    """Judges one answer to one question.

    Raise `version` whenever a scorer's result can change: it is stored with every score.

    Attributes:
        score: tells how right a prediction is, in [0, 1], from the answer alone (without the chain
            of thought before it), every accepted answer (in VQAv2 those of the ten annotators,
            repeats included), and the options of a multiple-choice question (else none).
    """

    name: str
    version: int
    score: Callable[[str, list[str], list[str]], float]

    @property
    def label(self) -> str:
        """What is stored beside a score: `vqav2/1`."""
        return f"{self.name}/{self.version}"
