"""Intervals against scipy's, the normal approximation, and how often they hold the truth."""

import math

import numpy as np
import pytest
from scipy import stats

from siqvl.evaluation.scoring.intervals import bootstrap_interval, paired_interval


def test_interval_is_close_to_the_normal_one_and_reproducible() -> None:
    correct = np.array([1] * 700 + [0] * 300)
    low, high = bootstrap_interval(correct, resamples=20_000)
    half = 1.96 * math.sqrt(0.7 * 0.3 / 1000)
    assert low == pytest.approx(0.7 - half, abs=0.003)
    assert high == pytest.approx(0.7 + half, abs=0.003)
    assert bootstrap_interval(correct) == bootstrap_interval(correct)
    assert bootstrap_interval(correct, seed=1) != bootstrap_interval(correct)
    assert bootstrap_interval(np.ones(50)) == (1.0, 1.0)


def test_partial_scores_agree_with_scipy() -> None:
    scores = np.random.default_rng(3).choice([0, 0.3, 0.6, 0.9, 1], size=400)
    expected = stats.bootstrap(
        (scores,), np.mean, n_resamples=20_000, method="percentile", rng=0
    ).confidence_interval
    assert bootstrap_interval(scores, resamples=20_000) == pytest.approx(expected, abs=0.003)


@pytest.mark.parametrize("level", [0.8, 0.95])
def test_paired_interval_agrees_with_scipy(level: float) -> None:
    generator = np.random.default_rng(7)
    scores = (generator.random(500) < 0.7).astype(float)
    rival = np.where(generator.random(500) < 0.8, scores, generator.random(500) < 0.5)

    def difference(one, other, axis=-1):
        return one.mean(axis=axis) - other.mean(axis=axis)

    expected = stats.bootstrap(
        (scores, rival),
        difference,
        paired=True,
        n_resamples=20_000,
        method="percentile",
        confidence_level=level,
        rng=0,
    ).confidence_interval
    found = paired_interval(scores, rival, level=level, resamples=20_000)
    assert found == pytest.approx(expected, abs=0.003)


def test_what_is_hard_for_both_cancels_out() -> None:
    hard = np.array([1.0] * 500 + [0.0] * 500)
    better = hard.copy()
    better[-50:] = 1.0  # right where the rival is, and on 5 % more
    low, high = paired_interval(better, hard)
    half = 1.96 * math.sqrt(0.05 * 0.95 / 1000)
    assert (low, high) == pytest.approx((0.05 - half, 0.05 + half), abs=0.003)
    assert paired_interval(hard, hard) == (0.0, 0.0)
    # side by side the two intervals overlap widely
    assert bootstrap_interval(hard)[1] > bootstrap_interval(better)[0]


def test_scores_of_other_questions_cannot_be_paired() -> None:
    with pytest.raises(ValueError, match="3 scores cannot be paired with 2"):
        paired_interval(np.zeros(3), np.zeros(2))


def test_nineteen_of_twenty_intervals_hold_the_true_difference() -> None:
    """Simulated test sets; of 400, 95 % +- 1.1 % (one sigma) should, and 91 % is four below."""
    generator = np.random.default_rng(11)
    held = 0
    for trial in range(400):
        hardness = generator.random(200)  # shared, so that the players are correlated
        scores = (generator.random(200) < 0.9 - 0.4 * hardness).astype(float)  # mean 0.7
        rival = (generator.random(200) < 0.8 - 0.4 * hardness).astype(float)  # mean 0.6
        low, high = paired_interval(scores, rival, resamples=400, seed=trial)
        held += low <= 0.1 <= high
    assert 0.91 <= held / 400 <= 0.99


def test_memory_is_bounded_without_changing_what_is_drawn(monkeypatch: pytest.MonkeyPatch) -> None:
    scores = np.random.default_rng(0).random(100)
    expected = bootstrap_interval(scores)
    monkeypatch.setattr("siqvl.evaluation.scoring.intervals._DRAWS", 1_000)
    assert bootstrap_interval(scores) == pytest.approx(expected, abs=1e-12)
