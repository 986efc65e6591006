"""Bootstrap intervals of a mean, and of the mean difference between two paired players."""

from __future__ import annotations

import numpy as np

LEVEL = 0.95
RESAMPLES = 2000
#: Drawn numbers held in memory at once.
_DRAWS = 4_000_000


def bootstrap_interval(
    scores: np.ndarray, *, level: float = LEVEL, resamples: int = RESAMPLES, seed: int = 0
) -> tuple[float, float]:
    """Computes the percentile bootstrap interval (Efron 1979) of the mean of `scores` [questions].

    Questions are drawn with replacement, so partial scores (VQAv2, ANLS) need no model of their
    own. How often each distinct score is drawn is multinomial, and all that the mean depends on:
    scores of right and wrong are drawn as two numbers, not one by one.
    """
    values, counts = np.unique(np.asarray(scores, dtype=np.float64), return_counts=True)
    generator = np.random.default_rng(seed)
    n = len(scores)
    at_once = max(1, _DRAWS // len(values))
    means: list[np.ndarray] = []
    for start in range(0, resamples, at_once):
        drawn = generator.multinomial(n, counts / n, size=min(at_once, resamples - start))
        means.append(drawn @ values / n)
    low, high = np.quantile(np.concatenate(means), [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)


def paired_interval(
    scores: np.ndarray,
    rival: np.ndarray,
    *,
    level: float = LEVEL,
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> tuple[float, float]:
    """Computes the interval of the mean of `scores - rival`, [questions], about the same ones.

    What is hard for both cancels out, which makes it far narrower than two intervals side by side.

    Raises:
        ValueError: they are not equally many.
    """
    if len(scores) != len(rival):
        raise ValueError(f"{len(scores)} scores cannot be paired with {len(rival)}")
    difference = np.asarray(scores, dtype=np.float64) - np.asarray(rival, dtype=np.float64)
    return bootstrap_interval(difference, level=level, resamples=resamples, seed=seed)
