"""`sampling.json`: what came of asking a checkpoint for pairs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from siqvl.preferences.pairing import Judged
from siqvl.recipe import SampledPairs
from siqvl.stored import Stored, read_stored

STATISTICS = "sampling.json"


@dataclass
class Counts:
    """Counted while questions are asked."""

    questions: int = 0  # asked
    completions: int = 0  # sampled
    right: int = 0  # of these, right and ended
    wrong: int = 0  # not even partly right
    never_ended: int = 0  # cut off at max_new_tokens
    questions_with_pairs: int = 0
    questions_without_wrong: int = 0  # always right, so that there is no pair
    questions_without_right: int = 0  # never right, likewise

    def add(self, judged: Sequence[Judged], pairs: int) -> str:
        """Counts a question; returns why it is left out, or nothing."""
        right, wrong = sum(one.right for one in judged), sum(one.wrong for one in judged)
        self.questions += 1
        self.completions += len(judged)
        self.right += right
        self.wrong += wrong
        self.never_ended += sum(not one.ended for one in judged)
        if pairs:
            self.questions_with_pairs += 1
            return ""
        if not right:
            self.questions_without_right += 1
            return "no sampled completion is right"
        if not wrong:
            self.questions_without_wrong += 1
            return "no sampled completion is wrong"
        return "sampled completions cannot be stored"


class Sampling(Stored):
    """Content of `sampling.json`."""

    checkpoint: str  # hash of the checkpoint that wrote the completions
    settings: SampledPairs
    scorer: str  # with its version, as `siqvl.evaluation.scoring.scorers.Scorer.label`
    seed: int
    pairs: int  # stored; repeats and pictures of benchmarks are left out
    questions: int
    completions: int
    right: int
    wrong: int
    never_ended: int
    questions_with_pairs: int
    questions_without_wrong: int
    questions_without_right: int

    @classmethod
    def read(cls, folder: Path) -> Sampling:
        """Reads the statistics of a folder of sampled pairs.

        Raises:
            UserError: it has none, or damaged ones.
        """
        missing = f"{folder} holds no sampled pairs: it has no {STATISTICS}"
        return read_stored(folder / STATISTICS, cls, missing)

    @property
    def right_share(self) -> float:
        """Of all completions, those that are right and ended."""
        return self.right / max(1, self.completions)

    def metrics(self, name: str) -> dict[str, float]:
        """Names the numbers for MLflow, below `sampling/<name>/`."""
        values = {
            "questions": self.questions,
            "completions": self.completions,
            "right_share": self.right_share,
            "never_ended_share": self.never_ended / max(1, self.completions),
            "questions_with_pairs": self.questions_with_pairs,
            "questions_without_wrong": self.questions_without_wrong,
            "questions_without_right": self.questions_without_right,
            "pairs": self.pairs,
        }
        return {f"sampling/{name}/{key}": float(value) for key, value in values.items()}
