"""Exact match and its interval."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np

#: Stored with every score; raise it whenever `normalise` or `exact_match` changes.
SCORER = "exact_match/1"


def normalise(answer: str) -> str:
    """Lower case, single spaces, no surrounding quotes or closing full stop."""
    return " ".join(answer.lower().split()).strip("\"'`").rstrip(".").strip()


def exact_match(prediction: str, answers: list[str]) -> bool:
    """Whether the prediction is one of the accepted answers, after normalisation."""
    return normalise(prediction) in {normalise(answer) for answer in answers}


def extract_answer(generation: str, marker: str | None) -> str:
    """The text after the last `marker`; the whole generation when there is no marker to look for.

    A chain of thought that never reaches its marker has given no answer: the result is empty.
    """
    if marker is None:
        return generation.strip()
    _, found, answer = generation.rpartition(marker)
    return answer.strip() if found else ""


def bootstrap_interval(
    correct: np.ndarray, *, level: float = 0.95, resamples: int = 2000, seed: int = 0
) -> tuple[float, float]:
    """Percentile bootstrap interval (Efron 1979) of the mean of `correct` [questions]."""
    import numpy as np

    generator = np.random.default_rng(seed)
    n = len(correct)
    # The mean of n draws with replacement from zeros and ones is binomial: no need to draw indices.
    means = generator.binomial(n, float(np.mean(correct)), size=resamples) / n
    low, high = np.quantile(means, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)
